"""Program text to typed operations, by a hand-written parser that no input can break.

The text comes from a model that may have read a hostile page. One pass of fixed, unambiguous patterns reads it, left
to right and without recursion, so time is linear whatever it holds; the result is always a `Program`. Text as refiners
nearly always write it is recognised by one pattern at once, more than twice as fast; what that pattern does not cover
to the last character is read call by call.
Where the design is silent, Python's syntax of a call decides (line breaks, comments and a trailing comma inside the
parentheses are allowed); anything but plain calls with literal arguments makes the whole program malformed.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final, NamedTuple

from prox_hpc.programs.language import (
    CALLS,
    DEFAULT_CAPS,
    MAX_INTEGER_DIGITS,
    Call,
    Caps,
    DropDoc,
    KeepDoc,
    Operation,
    Stage,
    Status,
    too_long,
)
from prox_hpc.programs.literals import CUT_STRING, STRING, BadEscape, decode

Value = int | str

# Between calls: blanks, comments, and the separators (line break, semicolon). Inside parentheses: no semicolon. The
# patterns are unambiguous (each character can match in one way only), so that backtracking stays linear.
_BETWEEN = re.compile(r"[ \t\r\f\n;]*(?:#[^\n]*(?:\n|\Z)[ \t\r\f\n;]*)*")
_INSIDE = r"[ \t\r\f\n]*(?:#[^\n]*(?:\n|\Z)[ \t\r\f\n]*)*"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_HEAD = re.compile(rf"({_NAME})[ \t\r\f]*(\()?")
# One argument with what follows it; every part is optional, so it always matches and the caller judges what is missing.
_ARGUMENT = re.compile(rf"{_INSIDE}(?:({_NAME}){_INSIDE}=(?!=){_INSIDE})?(?:(-?[0-9]+)|({STRING}))?{_INSIDE}([,)])?")
_KEYWORD = re.compile(rf"({_NAME})({_INSIDE})")
_CUT_INTEGER = re.compile(r"-?[0-9]*")
_FENCE_OPEN = re.compile(r"```[A-Za-z0-9_+.\-]*[ \t\r]*(?:\n|\Z)")
_FENCE = "```"

_CALLS_BY_NAME: Final[dict[Stage, dict[str, Call]]] = {
    stage: {call.name: call for call in calls} for stage, calls in CALLS.items()
}
_ALL_NAMES: Final = frozenset(name for calls in _CALLS_BY_NAME.values() for name in calls)
_SLOTS: Final[dict[str, dict[str, int]]] = {
    call.name: {keyword: slot for slot, parameter in enumerate(call.parameters) for keyword in parameter.keywords}
    for calls in CALLS.values()
    for call in calls
}


class Program(NamedTuple):
    """A parsed program.

    operations: the calls in order; empty if malformed, possibly empty if truncated.
    status: "ok", "truncated" or "malformed"; "partial" is known only after execution.
    reason: why it is malformed or what was discarded as cut off; None otherwise. Reasons are a small fixed set of
        phrases, so that they can be counted.
    """

    operations: tuple[Operation, ...]
    status: Status
    reason: str | None
    stage: Stage
    text: str


class _Malformed(Exception):
    """Internal: the text is no program; `cut` says that it is the proper beginning of one."""

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cut = cut


def parse(text: str, stage: Stage, *, truncated: bool = False, caps: Caps = DEFAULT_CAPS) -> Program:
    """Read program text of one stage; never raises, time linear in the text.

    truncated: the caller knows that generation hit the token limit. Then an unfinished last call is discarded, the
    calls before it stand, and the status is "truncated" (also when the cut fell between two calls). Without it an
    unfinished call is malformed like any other text that is not a program.
    """
    try:
        operations, reason = _parse_text(text, stage, truncated, caps)
    except _Malformed as error:
        return Program((), "malformed", error.reason, stage, text)
    return Program(operations, "truncated" if truncated else "ok", reason, stage, text)


def _parse_text(text: str, stage: Stage, truncated: bool, caps: Caps) -> tuple[tuple[Operation, ...], str | None]:
    """The operations, and the reason if the end was discarded; raises `_Malformed`."""
    if _over_bytes(text, caps.program_bytes):
        raise _Malformed("too many bytes")
    if not truncated and (plain := _plain_operations(text, stage, caps)):
        return plain, None
    if "\0" in text:
        raise _Malformed("NUL byte")
    position, fenced = _skip_opening(text)
    operations: list[Operation] = []
    reason: str | None = None
    end = len(text)
    while position < end and not (fenced and _at_fence_end(text, position, truncated)):
        if len(operations) >= caps.operations:
            raise _Malformed("too many operations")
        try:
            operation, position = _parse_call(text, position, stage, caps)
        except _Malformed as error:
            if truncated and error.cut:
                reason = "last call cut off"
                position = end
                break
            raise
        operations.append(operation)
        position = _skip_separator(text, position)
    if fenced:
        _check_closing(text, position, truncated)
    if not operations and reason is None:
        raise _Malformed("no call")
    if stage == "doc" and KeepDoc() in operations and DropDoc() in operations:
        raise _Malformed("keep and drop together")
    return tuple(operations), reason


# Line numbers of up to this many digits are read at once.
_PLAIN_DIGITS: Final = 9


@cache
def _plain_calls(stage: Stage) -> tuple[re.Pattern[str], dict[str, tuple[Any, bool, int, int]]]:
    """The pattern of one plain call with its separator, and how the groups of a match make an operation.

    Plain: one call a line, all arguments by place or all by keyword in order, strings in double quotes without escapes.
    Groups: the whole match, the name, then for each call with parameters its first keyword and its arguments.
    The table: name -> operation, whether its arguments are line numbers, first and last group of the arguments.
    """
    alternatives, table, groups = [], {}, 2
    for call in CALLS[stage]:
        keyword_group, arguments = groups + 1, ""
        for place, parameter in enumerate(call.parameters):
            keyword = f"(?:{'|'.join(parameter.keywords)})="
            value = f"([0-9]{{1,{_PLAIN_DIGITS}}})" if parameter.kind == "line" else r'"([^"\\\r\n\0]*)"'
            argument = f"({keyword})?{value}" if place == 0 else f", ?(?({keyword_group}){keyword}){value}"
            arguments += argument if parameter.default is None else f"(?:{argument})?"
        count = len(call.parameters)
        lines = any(parameter.kind == "line" for parameter in call.parameters)
        table[call.name] = (call.operation, lines, keyword_group, keyword_group + count)
        groups += count + 1 if count else 0
        alternatives.append(rf"{call.name}\({arguments}\)")
    names = "|".join(call.name for call in CALLS[stage])
    return re.compile(rf"((?=({names}))(?:{'|'.join(alternatives)})(?:\n|\Z))"), table


def _plain_operations(text: str, stage: Stage, caps: Caps) -> tuple[Operation, ...]:
    """The operations of a program of plain calls and nothing else; none if it is not one."""
    pattern, table = _plain_calls(stage)
    found = pattern.findall(text)
    if sum([len(groups[0]) for groups in found]) != len(text) or len(found) > caps.operations:
        return ()
    if stage == "doc" or caps.integer_digits < _PLAIN_DIGITS:
        return ()
    operations = []
    for groups in found:
        operation, lines, first, last = table[groups[1]]
        # An argument that is left out is the empty string, which is what its default is.
        operations.append(operation(*map(int, groups[first:last])) if lines else operation(*groups[first:last]))
    return tuple(operations)


def _over_bytes(text: str, limit: int) -> bool:
    """Whether `text` takes more than `limit` bytes; a lone surrogate counts three, as if it could be encoded."""
    if len(text) * 4 <= limit:
        return False
    return len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit


def _skip_opening(text: str) -> tuple[int, bool]:
    """Where the first call (or the end) is, and whether a code fence was opened before it."""
    position = _end(_BETWEEN, text, 0)
    opening = _FENCE_OPEN.match(text, position) if text.startswith(_FENCE, position) else None
    if opening is None:
        return position, False
    return _end(_BETWEEN, text, opening.end()), True


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Where `pattern`, which also matches nothing, stops matching."""
    match = pattern.match(text, position)
    return match.end() if match else position


def _at_fence_end(text: str, position: int, truncated: bool) -> bool:
    """At the closing fence, or at a cut-off beginning of it."""
    if text.startswith(_FENCE, position):
        return True
    return truncated and len(text) - position < len(_FENCE) and text[position:] in ("`", "``")


def _skip_separator(text: str, position: int) -> int:
    """Skip what stands between two calls; text straight after a call is malformed."""
    after = _end(_BETWEEN, text, position)
    if after < len(text) and not _holds_separator(text, position, after):
        raise _Malformed("text after a call")
    return after


def _holds_separator(text: str, start: int, end: int) -> bool:
    # A separator inside a comment does no harm: a comment ends with a line break or with the text.
    return text.find("\n", start, end) >= 0 or text.find(";", start, end) >= 0


def _check_closing(text: str, position: int, truncated: bool) -> None:
    """A fence that was opened must be closed, with nothing but blanks and comments behind it, unless cut off."""
    if not text.startswith(_FENCE, position):
        if truncated:
            return
        raise _Malformed("code fence not closed")
    if _end(_BETWEEN, text, position + len(_FENCE)) < len(text):
        raise _Malformed("text after the code fence")


def _parse_call(text: str, position: int, stage: Stage, caps: Caps) -> tuple[Operation, int]:
    """One call that starts at `position`, and the position after its closing parenthesis."""
    head = _HEAD.match(text, position)
    if head is None:
        raise _Malformed("not a call")
    name = head[1]
    call = _CALLS_BY_NAME[stage].get(name)
    if call is None or head[2] is None:
        raise _bad_head(text, head, stage)
    values, position = _parse_arguments(text, head.end(), call, caps)
    return _build(call, values), position


def _bad_head(text: str, head: re.Match[str], stage: Stage) -> _Malformed:
    name = head[1]
    if head.end() == len(text):
        names = _CALLS_BY_NAME[stage]
        finished_name = head.end(1) < len(text)
        if name in names if finished_name else any(known.startswith(name) for known in names):
            return _Malformed("unfinished call", cut=True)
    if name in _CALLS_BY_NAME[stage]:
        return _Malformed("not a call")
    return _Malformed("call of the other stage" if name in _ALL_NAMES else "unknown call")


def _parse_arguments(text: str, position: int, call: Call, caps: Caps) -> tuple[dict[int, Value], int]:
    """The arguments by slot (index of the parameter), and the position after `)`."""
    values: dict[int, Value] = {}
    by_place = True
    delimiter: str | None = ","
    while delimiter == ",":
        match = _ARGUMENT.match(text, position)
        if match is None:  # cannot happen: every part of the pattern is optional
            raise _Malformed("not a call")
        keyword, integer, string, delimiter = match.groups()
        position = match.end()
        if keyword is None and integer is None and string is None:
            if delimiter == ")":  # no arguments, or a trailing comma
                break
            if delimiter is None:
                _check_cut_keyword(text, match, call, values)
        by_place = by_place and keyword is None
        slot = _slot(keyword, call, len(values), by_place)
        if slot in values:
            raise _Malformed("repeated argument")
        if call.parameters[slot].kind == "line" and integer is not None:
            values[slot] = _integer(integer, caps)
        elif call.parameters[slot].kind == "string" and string is not None:
            values[slot] = _string(string)
        else:
            raise _bad_value(text, match, call.parameters[slot].kind)
    if delimiter is None:
        raise _Malformed("unfinished call" if position == len(text) else "not a literal", cut=position == len(text))
    return values, position


def _slot(keyword: str | None, call: Call, position: int, by_place: bool) -> int:
    """Which parameter an argument is for: by keyword, else by place."""
    if keyword is not None:
        slot = _SLOTS[call.name].get(keyword)
        if slot is None:
            raise _Malformed("unknown keyword")
        return slot
    if not by_place:
        raise _Malformed("positional argument after a keyword")
    if position >= len(call.parameters):
        raise _Malformed("too many arguments")
    return position


def _check_cut_keyword(text: str, match: re.Match[str], call: Call, values: dict[int, Value]) -> None:
    """Raise if the text ends where an argument was about to start or in the middle of one's keyword."""
    start = match.end()
    if start == len(text):
        raise _Malformed("unfinished call", cut=True)
    keyword = _KEYWORD.match(text, start)
    if keyword is None or keyword.end() < len(text):
        return
    left = [name for name, slot in _SLOTS[call.name].items() if slot not in values]
    if keyword[1] in left if keyword[2] else any(name.startswith(keyword[1]) for name in left):
        raise _Malformed("unfinished call", cut=True)


def _string(literal: str) -> str:
    try:
        return decode(literal)
    except BadEscape:
        raise _Malformed("bad escape") from None


def _bad_value(text: str, match: re.Match[str], kind: str) -> _Malformed:
    if match[2] is not None or match[3] is not None:
        return _Malformed("wrong argument type")
    if match[4] is not None:
        return _Malformed("missing argument")
    cut = _CUT_INTEGER if kind == "line" else CUT_STRING
    if match.end() == len(text) or cut.fullmatch(text, match.end()):
        return _Malformed("unfinished call", cut=True)
    return _Malformed("not a literal")


def _integer(digits: str, caps: Caps) -> int:
    """A decimal integer; one with more significant digits than the cap is out of every range, whatever it was."""
    most = min(caps.integer_digits, MAX_INTEGER_DIGITS)
    if len(digits) <= most:
        return int(digits)
    sign = -1 if digits[0] == "-" else 1
    significant = digits.lstrip("-").lstrip("0")
    return sign * (int(significant or "0") if len(significant) <= most else too_long(caps))


def _build(call: Call, values: dict[int, Value]) -> Operation:
    """The operation of a call, defaults filled in."""
    arguments: list[Value] = []
    for slot, parameter in enumerate(call.parameters):
        value = values.get(slot, parameter.default)
        if value is None:
            raise _Malformed("missing argument")
        arguments.append(value)
    return call.operation(*arguments)  # type: ignore[arg-type, call-arg]
