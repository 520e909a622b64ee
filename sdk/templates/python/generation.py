"""Answers that are being written. The module has the name of the contract's interface, as componentize-py wants it."""

from wit_world.exports import generation
from wit_world.imports import types

from words import begun, find, finding, size


class Session(generation.Session):
    """An answer that is being written. What it needs to remember would stand in its fields."""

    def __init__(self, request, prompt):
        pass

    def adjust_logits(self, drawn, candidates):
        return types.Biases(ids=[], values=[])

    def inspect_stream(self, pending, sources):
        out, rest, findings = "", pending, []
        while found := find(rest):
            at, word = found
            findings.append(finding(rest, found, size(pending) - size(rest)))
            out += rest[:at] + "***"
            rest = rest[at + len(word) :]
        # The last call has the sources of the answer: nothing follows, and nothing can be held.
        hold = begun(rest) if sources is None else 0
        if findings:
            return types.Action_Replace(types.Replacement(out + rest, hold, findings))
        return types.Action_Hold(hold) if hold else types.Action_Pass()
