"""The excluded words, and how they are found."""

from wit_world.imports import types

CATEGORY = "excluded-word"

#: Set by `configure`.
excluded = ["turnip"]


def lower(text):
    """ASCII letters in small, so that places in a text stay what they are."""
    return "".join(c.lower() if c.isascii() else c for c in text)


def size(text):
    """The length in bytes of UTF-8, in which spans and `hold` count."""
    return len(text.encode())


def find(text):
    """The first excluded word, and where it stands."""
    small = lower(text)
    return min(((small.find(word), word) for word in excluded if word in small), default=None)


def begun(text):
    """How many bytes at the end of the text may be the beginning of an excluded word."""
    small = lower(text)
    ends = (small[at:] for at in range(max(0, len(small) - max(map(len, excluded), default=0)), len(small)))
    return next((size(end) for end in ends if any(word.startswith(end) for word in excluded)), 0)


def finding(text, found, offset):
    at, word = found
    start = offset + size(text[:at])
    return types.Finding(CATEGORY, 1.0, "A word that is excluded here.", types.Span(start, start + size(word)))
