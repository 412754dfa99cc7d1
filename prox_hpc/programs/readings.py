"""A chunk's program line by line, as the language (`v1`) and the released executor (`prox_v1`) read it.

What sets the two readings of a call apart has one of a few names, after the rows of the facts sheet's table 1.6. They
are not guessed from the look of a program: a name is given where the released executor's own reading of a line is not
the operation that v1's parser found there, or where both apply the same operation by different rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Final

from prox_hpc.programs.document import ChunkProgram, ChunkReport
from prox_hpc.programs.execute import Outcome
from prox_hpc.programs.language import (
    CALLS,
    MAX_INTEGER_DIGITS,
    Caps,
    Normalize,
    Operation,
    RemoveLines,
    render,
    too_long,
)
from prox_hpc.programs.literals import STRING, decode
from prox_hpc.programs.parse import parse
from prox_hpc.programs.prox_v1 import Reading, join_outputs, read_line


class Cause(StrEnum):
    """Why the two executors differ, in the order in which reports list them."""

    # Calls that the released executor reads as something else.
    POSITIONAL = "positional arguments"
    KEYWORD_ORDER = "keywords in another order"
    TRAILING_COMMA = "trailing comma"
    COMMA = "comma in a string"
    PARENTHESIS = "parenthesis in a string"
    EQUALS = "equals sign in a string"
    SINGLE_QUOTES = "single quotes"
    ESCAPE = "escape sequence"
    BLANKS_AROUND = "blanks around a string"
    BLANKS_BEFORE = "blanks before the call"
    SEMICOLON = "calls on one line"
    SEVERAL_LINES = "call over several lines"
    ALL_TRUE = "all=True"
    CUT_OFF = "call cut off"
    # Calls that it executes where v1 executes none of the program.
    MALFORMED = "malformed program executed in part"
    CAP = "program beyond a cap"
    NOT_ASKED = "program of an oversized or misplaced chunk"
    # Calls that both read alike, and apply by different rules.
    BEYOND_END = "line beyond the end"
    OUTSIDE = "line outside the chunk"
    NEGATIVE = "negative line number"
    REVERSED = "start after end"
    REPLACED_OUTSIDE = "replaced outside the chunk"
    BLANK_SOURCE = "blank source"
    INTEGER_CAP = "integer beyond a cap"
    STRING_CAP = "string or growth beyond a cap"
    SURROGATE = "lone surrogate"
    # What becomes of the document as a whole.
    DROP_SUBSTRING = "drop in the program text"
    REVERTED = "too many errors: reverted"
    UNTOUCHED = "too few words in an untouched document"
    NO_WORDS = "text without words"
    CHECKS = "rounding in the document checks"
    UNEXPLAINED = "unexplained"


MISREADINGS: Final = frozenset(list(Cause)[: list(Cause).index(Cause.MALFORMED)])
"""The causes that are a misreading of a call."""

_REFUSALS: Final = {
    "start after end": Cause.REVERSED,
    "integer too long": Cause.INTEGER_CAP,
    "source not found": Cause.REPLACED_OUTSIDE,
    "blank source": Cause.BLANK_SOURCE,
    "string too long": Cause.STRING_CAP,
    "growth beyond the cap": Cause.STRING_CAP,
    "lone surrogate": Cause.SURROGATE,
}
_FIRST_KEYWORDS: Final = {call.operation: call.parameters[0].keywords for call in CALLS["chunk"] if call.parameters}
_BLANKS = " \t\r\f"
# An argument of a call on one line that v1 has read: keyword, blanks after `=`, literal, blanks behind it, its end.
_ARGUMENT = re.compile(
    rf"[{_BLANKS}]*(?:(\w+)[{_BLANKS}]*=([{_BLANKS}]*))?(-?[0-9]+|{STRING})([{_BLANKS}]*)([,)])", re.ASCII
)
_MOST_LINES_REREAD = 256
"""Lines of a program with a call over several lines that are told apart; rereading them is quadratic."""


@dataclass(slots=True)
class ProgramLine:
    """A line of a chunk's program (or a call over several lines), as both executors read it.

    number: of the line in the program, from 0. readings: the released executor's, one a line. outcomes: what v1 did
    with the calls here. part: of the document's text that is the chunk, None if it has no lines. causes: what sets the
    two apart.
    """

    number: int
    text: str
    readings: tuple[Reading, ...]
    outcomes: tuple[Outcome, ...]
    part: int | None
    causes: frozenset[Cause] = frozenset()

    @property
    def does_nothing(self) -> bool:
        return not any(map(_acts, self.readings)) and all(done.outcome != "applied" for done in self.outcomes)


def program_lines(
    chunk: ChunkProgram, report: ChunkReport, part: int | None, last_line: int, caps: Caps
) -> Iterator[ProgramLine]:
    """A chunk's program line by line, with what v1 did and what sets the released executor apart."""
    if chunk.program_text is None:
        return
    texts = join_outputs([chunk.program_text]).split("\n")
    for start, stop, outcomes in _aligned(chunk, report.operations, caps):
        readings = tuple(map(read_line, texts[start:stop]))
        line = ProgramLine(start, "\n".join(texts[start:stop]), readings, outcomes, part)
        if not line.does_nothing:
            line.causes = frozenset(_causes(line, report, start + 1 == len(texts), last_line, caps))
        yield line


def _aligned(
    chunk: ChunkProgram, outcomes: tuple[Outcome, ...], caps: Caps
) -> Iterator[tuple[int, int, tuple[Outcome, ...]]]:
    """Which of v1's operations stand on which lines: first line, line behind the last, outcomes."""
    text = chunk.program_text or ""
    operations = [outcome.op for outcome in outcomes]
    lines = text.split("\n")
    if not operations:
        counts = [0] * len(lines)
    elif len(operations) == len(lines) and render(operations) == text:
        counts = [1] * len(lines)
    else:
        parsed = [
            parse(line, "chunk", truncated=chunk.truncated and number == len(lines), caps=caps).operations
            for number, line in enumerate(lines, 1)
        ]
        if list(chain.from_iterable(parsed)) != operations:
            yield from _aligned_by_beginnings(lines, outcomes, caps)
            return
        counts = [len(line) for line in parsed]
    position = 0
    for number, count in enumerate(counts):
        yield number, number + 1, outcomes[position : position + count]
        position += count


def _aligned_by_beginnings(
    lines: list[str], outcomes: tuple[Outcome, ...], caps: Caps
) -> Iterator[tuple[int, int, tuple[Outcome, ...]]]:
    """The same for a program with calls over several lines: what a beginning of it, taken as cut off, says."""
    if len(lines) > _MOST_LINES_REREAD:
        yield 0, len(lines), outcomes
        return
    start = done = 0
    for stop in range(1, len(lines) + 1):
        beginning = parse("\n".join(lines[:stop]), "chunk", truncated=True, caps=caps)
        count = len(outcomes) if stop == len(lines) else max(done, len(beginning.operations))
        no_call = lines[stop - 1].lstrip(_BLANKS + ";")[:1] in ("", "#", "`")
        if count > done or (no_call and start == stop - 1) or stop == len(lines):
            yield start, stop, outcomes[done:count]
            start, done = stop, count


def _causes(line: ProgramLine, report: ChunkReport, is_last: bool, last_line: int, caps: Caps) -> set[Cause]:
    """What sets the executors apart on a line on which at least one of them does something."""
    if report.status in ("misplaced", "oversized"):
        return {Cause.NOT_ASKED}
    if report.status == "malformed":
        return {_malformed_cause(line, report.reason or "", is_last)}
    if report.status == "truncated" and not line.outcomes:
        return {Cause.CUT_OFF}
    operations = tuple(outcome.op for outcome in line.outcomes)
    if parse(line.text, "chunk", truncated=report.status == "truncated", caps=caps).operations != operations:
        return {Cause.SEVERAL_LINES}
    if len(line.readings) > 1:
        return {Cause.SEVERAL_LINES}
    if len(operations) == 1 and _reads_alike(line.readings[0], line.outcomes[0], caps):
        return _rule_causes(line.outcomes[0], last_line)
    return _reading_causes(line, last_line) or {Cause.UNEXPLAINED}


def _malformed_cause(line: ProgramLine, reason: str, is_last: bool) -> Cause:
    if any(reading.lines == "all" for reading in line.readings):
        return Cause.ALL_TRUE
    if reason.startswith("too many"):
        return Cause.CAP
    return Cause.CUT_OFF if reason == "unfinished call" and is_last else Cause.MALFORMED


def _acts(reading: Reading) -> bool:
    return bool(reading.errors) or reading.lines is not None or reading.strings is not None


def _reads_alike(reading: Reading, outcome: Outcome, caps: Caps) -> bool:
    """Whether the released executor reads the call that v1 has read."""
    operation = outcome.op
    if reading.errors:
        return False
    if isinstance(operation, RemoveLines):
        first_too_long = 10 ** min(caps.integer_digits, MAX_INTEGER_DIGITS)
        numbers = reading.lines if isinstance(reading.lines, tuple) else ()
        read = (n if abs(n) < first_too_long else too_long(caps) if n > 0 else -too_long(caps) for n in numbers)
        return tuple(read) == (operation.line_start, operation.line_end)
    if isinstance(operation, Normalize) and reading.strings is not None:
        source, target = reading.strings
        return (source, target or "") == (operation.source_str, operation.target_str)
    return not _acts(reading)


def _rule_causes(outcome: Outcome, last_line: int) -> set[Cause]:
    """By which rule the executors apply a call differently that they read alike."""
    if outcome.outcome != "refused":
        return {Cause.REPLACED_OUTSIDE} if isinstance(outcome.op, Normalize) else set()
    if isinstance(outcome.op, RemoveLines) and outcome.reason == "line outside the chunk":
        if outcome.op.line_end > last_line:
            return {Cause.BEYOND_END}
        return {Cause.NEGATIVE if outcome.op.line_start < 0 else Cause.OUTSIDE}
    return {_REFUSALS.get(outcome.reason or "", Cause.UNEXPLAINED)}


def _reading_causes(line: ProgramLine, last_line: int) -> set[Cause]:
    """Why the released executor does not read what v1 has read on a line; each of these alone would be enough."""
    call = line.text.lstrip(_BLANKS + ";")
    before = line.text[: len(line.text) - len(call)]
    causes: set[Cause] = set()
    if len(line.outcomes) > 1 or ";" in before:
        causes.add(Cause.SEMICOLON)
    elif before:
        causes.add(Cause.BLANKS_BEFORE)
    if line.readings[0].lines == "all":
        causes.add(Cause.ALL_TRUE)
    first = line.outcomes[0]
    if isinstance(first.op, RemoveLines | Normalize):
        causes |= _argument_causes(call, type(first.op))
    if not causes and isinstance(first.op, RemoveLines):  # a number of more digits than Python converts
        return _rule_causes(first, last_line)
    return causes


def _argument_causes(text: str, operation: type[Operation]) -> set[Cause]:
    """Why the released executor does not read the arguments of the call that `text` begins with."""
    arguments = list(_arguments(text))
    keywords = [argument[0] for argument in arguments]
    causes: set[Cause] = set()
    if None in keywords:
        causes.add(Cause.POSITIONAL)
    elif keywords and keywords[0] not in _FIRST_KEYWORDS[operation]:
        causes.add(Cause.KEYWORD_ORDER)
    if operation is Normalize:
        for _, before, literal, behind, _ in arguments:
            causes.update(_string_causes(literal))
            if before or behind:
                causes.add(Cause.BLANKS_AROUND)
        if arguments and arguments[-1][-1] == ",":
            causes.add(Cause.TRAILING_COMMA)
    return causes


def _arguments(text: str) -> Iterator[tuple[str | None, str, str, str, str]]:
    """Of each argument: keyword, blanks before the literal, literal, blanks behind it, delimiter."""
    position = text.find("(") + 1
    while position and (match := _ARGUMENT.match(text, position)):
        keyword, before, literal, behind, delimiter = match.groups()
        yield keyword, before or "", literal, behind, delimiter
        position = match.end() if delimiter == "," else 0


def _string_causes(literal: str) -> Iterator[Cause]:
    body = literal[1:-1]
    if "," in body:
        yield Cause.COMMA
    if ")" in body:
        yield Cause.PARENTHESIS
    if "=" in body:
        yield Cause.EQUALS
    if literal[0] == "'":
        yield Cause.SINGLE_QUOTES
    if decode(literal) != body:
        yield Cause.ESCAPE
