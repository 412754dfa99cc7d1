"""The words of the program language: operations, signatures, caps, and how a program is written.

A refiner writes a short program per document or chunk. Everything that reads or writes such programs (parser, executor,
grammar, gold labels) takes its knowledge from the one table `CALLS` in this file, so that they cannot drift apart.
The rules are those of the design document, section 6.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

VERSION: Final = "v1"
"""Version of the language; part of a refiner's identity, raised when a program's meaning changes."""

Stage = Literal["doc", "chunk"]
Status = Literal["ok", "partial", "truncated", "malformed"]
Profile = Literal["v1", "deletion_only", "prox_v1"]

STAGES: Final[tuple[Stage, ...]] = ("doc", "chunk")
STATUSES: Final[tuple[Status, ...]] = ("ok", "partial", "truncated", "malformed")
PROFILES: Final[tuple[Profile, ...]] = ("v1", "deletion_only", "prox_v1")


@dataclass(frozen=True, slots=True)
class RemoveLines:
    """Delete lines `line_start` to `line_end`, both included, 0-based over the whole document."""

    line_start: int
    line_end: int


@dataclass(frozen=True, slots=True)
class Normalize:
    """Replace every literal occurrence of `source_str` inside the chunk's lines by `target_str`."""

    source_str: str
    target_str: str = ""


@dataclass(frozen=True, slots=True)
class KeepChunk:
    """Leave the chunk as it is."""


@dataclass(frozen=True, slots=True)
class KeepDoc:
    """Leave the document as it is."""


@dataclass(frozen=True, slots=True)
class DropDoc:
    """Drop the whole document."""


Operation = RemoveLines | Normalize | KeepChunk | KeepDoc | DropDoc


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds on what a program may cost; each one, when hit, is a counted reason and never an exception.

    program_bytes: UTF-8 bytes of program text. A refiner writes at most about a thousand tokens (4 kB); 128 KiB holds
        what a grammar admits (64 edits with strings of 200 four-byte characters) and keeps a megabyte of babble from
        being read at all.
    operations: calls in one program. Refiners average 3.7 calls; looping ones reach some dozens; a chunk of 1,500
        tokens cannot need more than one call per other line.
    string_chars: characters of one string argument; longer than most whole lines.
    integer_digits: significant digits of an integer; a longer one is out of any document's range, and converting it
        would cost quadratic time.
    growth_chars, growth_ratio: a chunk of n characters may become at most `n * (1 + growth_ratio) + growth_chars`
        characters long. Cleaning shrinks text; the slack is for short chunks with, say, a spelled-out abbreviation.
    """

    program_bytes: int = 131_072
    operations: int = 256
    string_chars: int = 2_000
    integer_digits: int = 18
    growth_chars: int = 512
    growth_ratio: float = 0.25


DEFAULT_CAPS: Final = Caps()
MAX_INTEGER_DIGITS: Final = 4_000
"""No cap on digits goes beyond this: Python refuses to convert more than 4,300."""


def too_long(caps: Caps) -> int:
    """What an integer of more digits than the cap is read as: beyond the last line of any document."""
    return int(10 ** max(18, min(caps.integer_digits, MAX_INTEGER_DIGITS)))


ParameterKind = Literal["line", "string"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a call: its keyword (and other accepted keywords), its kind, its default (None: required)."""

    name: str
    kind: ParameterKind
    aliases: tuple[str, ...] = ()
    default: str | None = None

    @property
    def keywords(self) -> tuple[str, ...]:
        """Every keyword that names this parameter."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the language as a stage sees it: its name, the operation it makes, its parameters in order."""

    name: str
    operation: type[Operation]
    parameters: tuple[Parameter, ...] = ()
    alias: bool = False

    @property
    def required(self) -> int:
        """Number of arguments without a default."""
        return sum(parameter.default is None for parameter in self.parameters)


CALLS: Final[dict[Stage, tuple[Call, ...]]] = {
    "doc": (
        Call("keep_doc", KeepDoc),
        Call("drop_doc", DropDoc),
        Call("untouch_doc", KeepDoc, alias=True),
    ),
    "chunk": (
        Call(
            "remove_lines",
            RemoveLines,
            (Parameter("line_start", "line", ("start",)), Parameter("line_end", "line", ("end",))),
        ),
        Call(
            "normalize", Normalize, (Parameter("source_str", "string"), Parameter("target_str", "string", default=""))
        ),
        Call("keep_chunk", KeepChunk),
        Call("untouch_doc", KeepChunk, alias=True),
    ),
}
"""The calls of each stage. `untouch_doc` is what the released ProX chunk refiner writes for "no change"."""

OPERATION_NAMES: Final[dict[type[Operation], str]] = {
    call.operation: call.name for calls in CALLS.values() for call in calls if not call.alias
}

# Characters that stand for themselves in a string we write; the rest is escaped. The grammar uses the same class.
PLAIN_STRING_CLASS: Final = r'[^"\\\x00-\x1f\x7f]'
_NEEDS_ESCAPE = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def operation_name(operation: Operation) -> str:
    """The canonical call name of an operation: `remove_lines`, `normalize`, `keep_chunk`, `keep_doc` or `drop_doc`."""
    return OPERATION_NAMES[type(operation)]


def quote(text: str) -> str:
    """`text` as a double-quoted string literal of the language, on one line, whatever it contains."""
    return f'"{_NEEDS_ESCAPE.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    short = _SHORT_ESCAPES.get(char)
    if short is not None:
        return short
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"


def render_operation(operation: Operation) -> str:
    """One operation as canonical program text: positional arguments, a default target left out."""
    if isinstance(operation, RemoveLines):
        return f"remove_lines({operation.line_start}, {operation.line_end})"
    if isinstance(operation, Normalize):
        target = f", {quote(operation.target_str)}" if operation.target_str else ""
        return f"normalize({quote(operation.source_str)}{target})"
    return f"{operation_name(operation)}()"


def render(operations: Iterable[Operation]) -> str:
    """Canonical program text, one call a line; `parse(render(ops), stage).operations == tuple(ops)`.

    No operations give the empty text, which is no program: write `keep_chunk()` or `keep_doc()` to say "no change".
    """
    return "\n".join(map(render_operation, operations))
