"""What the client tests share: `CLIENT.py BASE_URL MODEL [CHECK ...]` runs every check of a client, or those named."""

import asyncio
import os
import sys
import traceback

BASE, MODEL = sys.argv[1:3]
PROMPT = "Once upon a time"
MESSAGES = [{"role": "user", "content": "Tell me a story."}]

# One event loop for all checks, since clients keep their connections.
wait = asyncio.new_event_loop().run_until_complete


def raises(error, call, *arguments, **options):
    """The error of this type that the call raises."""
    try:
        call(*arguments, **options)
    except error as raised:
        return raised
    raise AssertionError(f"accepted, although {error.__name__} was expected: {arguments} {options}")


def close(left, right, tolerance):
    """Whether two lists of numbers are the same to within a tolerance."""
    return len(left) == len(right) and all(abs(a - b) <= tolerance for a, b in zip(left, right))


def run(checks, when_named=()):
    """Runs the checks named on the command line, or all of the first list, and exits with 1 if any failed."""
    named = sys.argv[3:]
    known = {check.__name__: check for check in [*checks, *when_named]}
    failed = []
    for name in named or [check.__name__ for check in checks]:
        try:
            known[name]()
        except Exception:
            print(f"--- {name}", file=sys.stderr)
            traceback.print_exc()
            failed.append(name)
    if failed:
        print(f"failed: {' '.join(failed)}", file=sys.stderr)
    # At once: threads that LiteLLM leaves running can crash the interpreter while it ends in the usual way.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failed else 0)
