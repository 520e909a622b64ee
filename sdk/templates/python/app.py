"""A safety policy for SafeLMM: prompts with an excluded word are refused, and in answers it is masked.

The contract is wit/policy.wit; `componentize-py -d wit -w policy bindings .` writes it as Python, for editors.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import types

import words
from words import CATEGORY, find, finding, lower

#: What an operator may set, as JSON Schema.
SETTINGS = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "words": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "description": "Words that are excluded.",
        }
    },
}


class Meta(exports.Meta):
    def describe(self):
        return types.Description(
            name="{{name}}",
            version="0.1.0",
            summary="Excludes words.",
            hooks=[types.Hook.SCREEN_PROMPT, types.Hook.INSPECT_STREAM],
            categories=[CATEGORY],
            languages=[],
            capabilities=[],
            settings_schema=json.dumps(SETTINGS),
        )

    def configure(self, settings):
        try:
            read = json.loads(settings.strip() or "{}")
        except ValueError as error:
            raise Err([types.SettingError("", f"The settings are not JSON: {error}")])
        if not isinstance(read, dict):
            raise Err([types.SettingError("", "The settings must be an object.")])
        errors = [
            types.SettingError(f"/{key}", "There is no such setting; there is: words.")
            for key in read
            if key != "words"
        ]
        listed = read.get("words", words.excluded)
        if not isinstance(listed, list):
            errors.append(types.SettingError("/words", "Words must be a list."))
            listed = []
        for number, word in enumerate(listed):
            if not isinstance(word, str) or not word.strip():
                errors.append(types.SettingError(f"/words/{number}", "A word must be a text that is not empty."))
        if errors:
            raise Err(errors)
        words.excluded = [lower(word) for word in listed]

    def vectors(self):
        prompt, stream = types.Probe_ScreenPrompt, types.Probe_InspectStream
        allow, deny, rewrite = types.Outcome.ALLOW, types.Outcome.DENY, types.Outcome.REWRITE
        return [
            vector("another word", prompt("A carrot, please."), allow),
            vector("an excluded word", prompt("A Turnip, please."), deny, category=CATEGORY),
            vector("in two pieces", stream(["Eat a tur", "nip."]), rewrite, text="Eat a ***."),
            vector("only the beginning", stream(["Take a tur", "n."]), allow, text="Take a turn."),
            vector("other words", prompt("A carrot."), deny, settings='{"words": ["carrot"]}'),
        ]


class Texts(exports.Texts):
    def screen_prompt(self, request, text):
        found = find(text)
        return types.Verdict_Deny([finding(text, found, 0)]) if found else types.Verdict_Allow()

    def filter_passages(self, request, passages):
        return [types.Verdict_Allow() for _ in passages]

    def review_response(self, request, text, sources):
        return types.Verdict_Allow()


class Generation(exports.Generation):
    pass


def vector(name, probe, expected, settings=None, category=None, text=None, sources=()):
    return types.Vector(name, settings, probe, expected, category, text, list(sources))
