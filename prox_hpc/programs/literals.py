r"""String literals of program text, decoded by hand.

Program text is hostile, so Python's own evaluators are never let near it. This file knows what one plain single-line
string literal looks like and what its escapes mean: the same as in Python, including octal, `\N{...}` and the rule that
an unknown escape stays as written. Every pattern is unambiguous (one way to match each character), so that even a
failing match takes linear time.
"""

from __future__ import annotations

import re
import unicodedata

_ESCAPED = r"\\(?:\r\n|[\s\S])"
_DOUBLE = rf'[^"\\\r\n]*(?:{_ESCAPED}[^"\\\r\n]*)*'
_SINGLE = rf"[^'\\\r\n]*(?:{_ESCAPED}[^'\\\r\n]*)*"

STRING = rf"\"{_DOUBLE}\"|'{_SINGLE}'"
"""Regular expression of one complete literal, quotes included."""

CUT_STRING = re.compile(rf"(?:\"{_DOUBLE}|'{_SINGLE})\\?")
"""A literal whose end is missing: matches to the end of the text if only the token limit is to blame."""

_ESCAPE = re.compile(
    r"\\(?:(?P<octal>[0-7]{1,3})|x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})"
    r"|N\{(?P<name>[A-Za-z0-9 \-]{1,200})\}|(?P<line>\r\n?|\n)|(?P<char>[\s\S]))"
)
_CHARS = {
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_NEED_DIGITS = frozenset("xuUN")


class BadEscape(ValueError):
    """An escape that is no escape: `\\x1`, `\\u12`, `\\N{no such name}`, a code point past U+10FFFF."""


def decode(literal: str) -> str:
    """The value of a literal that `STRING` matched; raises `BadEscape` where Python would refuse the program."""
    body = literal[1:-1]
    return _ESCAPE.sub(_decode_escape, body) if "\\" in body else body


def _decode_escape(match: re.Match[str]) -> str:
    kind = match.lastgroup
    value = match[kind] if kind else ""
    if kind == "octal":
        return chr(int(value, 8))
    if kind in ("x", "u", "U"):
        return _code_point(int(value, 16))
    if kind == "name":
        return _named(value)
    if kind == "line":
        return ""  # a backslash before a line break joins the lines
    if value in _NEED_DIGITS:
        raise BadEscape(match.group())
    return _CHARS.get(value, match.group())


def _code_point(number: int) -> str:
    if number > 0x10FFFF:
        raise BadEscape(hex(number))
    return chr(number)


def _named(name: str) -> str:
    try:
        char = unicodedata.lookup(name)
    except KeyError:
        raise BadEscape(name) from None
    if len(char) != 1:  # a named sequence is no character, in Python neither
        raise BadEscape(name)
    return char
