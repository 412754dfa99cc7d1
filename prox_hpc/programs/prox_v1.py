"""The released ProX executor, bug for bug, for parity tests and for replaying the outputs of the released refiners.

It reads raw program text, once for the whole document (all chunk outputs joined by line feeds), by looking for
parentheses, commas and equal signs, and so misreads much of what a refiner can write; the facts sheet's table 1.6 lists
how, and a test holds this module to it row by row. Written anew from that behaviour.

It departs from the original only where that would take the machine down, each departure held by a test:
* a huge range of lines is kept as a range; the original builds a set of its numbers;
* the text grows to at most `MOST_GROWTH_RATIO` times its length plus `MOST_GROWTH_CHARS` characters more; a replacement
  that would go beyond changes nothing. The original bounds nothing;
* of one document's replacements the first `MOST_REPLACEMENTS` are made; each costs a pass over the whole document;
* a text without words (empty or white space only) gives an empty result; the original divides by zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

MOST_GROWTH_RATIO: Final = 4
MOST_GROWTH_CHARS: Final = 65_536

MOST_REPLACEMENTS: Final = 4_096
"""Refiners average 3.7 calls a chunk, so this is a document of a thousand chunks; 50 ms for one of 10 kB."""

MAX_ERRORS: Final = 2
"""From this many errors on, pooled over the document's chunks, the original text comes back."""

Did = Literal["applied", "no_change"]
Verdict = Literal["accepted", "reverted", "removed too much", "too few words", "no words"]
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """One line of program text as the original reads it, nothing done yet.

    errors: as the original counts them. lines: inclusive numbers to remove, or "all". strings: source and target of a
    replacement, the target None if there was one argument only. Neither: the line does nothing.
    """

    errors: int = 0
    lines: Range | Literal["all"] | None = None
    strings: tuple[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """A removal as the original understood it: inclusive line numbers, perhaps not what the program said.

    affected: the lines of the text it names.
    """

    start: int
    end: int
    outcome: Did
    reason: str | None = None
    affected: int = 0


@dataclass(frozen=True, slots=True)
class Replacement:
    """A replacement as the original understood it. affected: occurrences replaced."""

    source: str
    target: str
    outcome: Did
    reason: str | None = None
    affected: int = 0


Step = Removal | Replacement


@dataclass(frozen=True, slots=True)
class OperationsResult:
    """What the operations did to a text.

    lines: the lines after replacements, before removals. removed: inclusive spans of line numbers, disjoint, ascending.
    errors: as the original counts them. replaced: occurrences. steps: the calls it understood, in order.
    """

    lines: tuple[str, ...]
    removed: tuple[Range, ...]
    errors: int
    replaced: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class ProxV1Result:
    """A document after the original's operations and post-checks.

    text: the result, empty if the document is to go. verdict: which post-check decided. operations: what was done
    before the checks.
    """

    text: str
    verdict: Verdict
    operations: OperationsResult


def drops(program_text: str) -> bool:
    """The original's doc stage: the document goes if "drop" stands anywhere in the output."""
    return "drop" in program_text


def join_outputs(texts: Iterable[str]) -> str:
    """A document's chunk outputs as the one program the original executes: each stripped of spaces, then joined."""
    return "\n".join(text.strip(" ") for text in texts)


def execute_prox_v1(
    text: str,
    program_text: str,
    *,
    threshold_1: float = 0.0,
    threshold_2: float = 0.95,
    error_op: int = MAX_ERRORS,
    min_words: int = 11,
) -> ProxV1Result:
    """Operations on the whole document, then the post-checks; arguments as of `judge`.

    program_text: all chunk outputs (see `join_outputs`).
    """
    result = run_operations(text, program_text)
    refined = "\n".join(_without(result.lines, result.removed))
    verdict = judge(
        len(text.split()),
        len(refined.split()),
        result.errors,
        threshold_1=threshold_1,
        threshold_2=threshold_2,
        error_op=error_op,
        min_words=min_words,
    )
    texts: dict[Verdict, str] = {"accepted": refined, "reverted": text}
    return ProxV1Result(texts.get(verdict, ""), verdict, result)


def judge(
    words_before: int,
    words_after: int,
    errors: int,
    *,
    threshold_1: float = 0.0,
    threshold_2: float = 0.95,
    error_op: int = MAX_ERRORS,
    min_words: int = 11,
) -> Verdict:
    """The post-checks in the original's order (words = whitespace split).

    threshold_1: least share of words kept to accept. threshold_2: share of words removed from which the document goes.
    error_op: errors from which the program is ignored. min_words: with fewer words left the document goes, even if
    it was not edited.
    """
    few_errors = errors < error_op
    if not words_before:
        return "no words"
    if words_after / words_before <= 1 - threshold_2 and few_errors:
        return "removed too much"
    if words_after < min_words:
        return "too few words"
    return "accepted" if words_after / words_before >= threshold_1 and few_errors else "reverted"


def run_operations(text: str, program_text: str, first_line: int = 0) -> OperationsResult:
    """The operations without post-checks.

    first_line: the number of the text's first line; the original knows only 0. Each replacement costs a pass over the
    text, as in the original.
    """
    editing = Editing([text], first_line)
    for line in program_text.strip(" ").split("\n"):
        editing.apply(read_line(line))
    return editing.finish()


_NOTHING = Reading()


def read_line(line: str) -> Reading:
    """One line of the program as the original reads it: no blank may stand before the call."""
    if line.startswith("remove_lines"):
        return Reading(lines="all") if "all=True" in line else _read_removal(line)
    return _read_replacement(line) if line.startswith("normalize") else _NOTHING


def _read_removal(line: str) -> Reading:
    """Two comma-separated parts, each `anything=integer`; a positional call has no `=` and is an error."""
    parts, errors = _parts(line)
    try:
        return Reading(errors, lines=(int(parts[0].split("=")[1]), int(parts[1].split("=")[1])))
    except (IndexError, ValueError):
        return Reading(errors + 1)


def _read_replacement(line: str) -> Reading:
    """One or two parts, `anything="string"`; three or more (a comma in a string) are ignored without an error."""
    parts, errors = _parts(line)
    if len(parts) > 2:
        return Reading(errors)
    try:
        source, *rest = [part.split("=")[1].strip('"') for part in parts]
    except IndexError:
        return Reading(errors + 1)
    return Reading(errors, strings=(source, rest[0] if rest else None))


def _parts(line: str) -> tuple[list[str], int]:
    """What stands from the first `(` to the first `)`, split at commas, and the errors so far.

    Without `)`: all but the last character, an error. Without `(`: one empty part, which the caller counts as an error.
    """
    start = line.find("(") + 1
    if not start:
        return [""], 0
    end = line.find(")")
    return line[start:end].split(","), int(end < 0)


class Editing:
    """A text while a program's lines are applied to it.

    parts: the text, cut at line feeds wherever the caller likes. No replacement crosses a line feed, since a program
    line holds none, so the cuts make no difference; who compares executors may edit one part by other rules.
    """

    def __init__(self, parts: Sequence[str], first_line: int = 0) -> None:
        self.parts = list(parts)
        self.first_line = first_line
        self.last_line = first_line + sum(part.count("\n") + 1 for part in parts) - 1
        self.most_chars = sum(map(len, parts)) * (1 + MOST_GROWTH_RATIO) + MOST_GROWTH_CHARS
        self.ranges: list[Range] = []
        self.everything = False
        self.errors = 0
        self.replacements = 0
        self.replaced = 0
        self.steps: list[Step] = []

    def apply(self, reading: Reading) -> Step | None:
        """Do what a line says; the step, None if the line does nothing."""
        self.errors += reading.errors
        if reading.lines is not None:
            step: Step = self._remove(reading.lines)
        elif reading.strings is not None:
            step = self._replace(*reading.strings)
        else:
            return None
        self.steps.append(step)
        return step

    def _remove(self, lines: Range | Literal["all"]) -> Removal:
        if lines == "all":
            self.everything = True
            return Removal(self.first_line, self.last_line, "applied", "all=True", self.last_line - self.first_line + 1)
        self.ranges.append(lines)
        start, end = lines
        count = min(end, self.last_line) - max(start, self.first_line) + 1
        return Removal(*lines, "applied", None, count) if count > 0 else Removal(*lines, "no_change", "no such line")

    def _replace(self, source: str, target: str | None) -> Replacement:
        new = target or ""
        count, reason = self._occurrences(source, new, guarded=target is not None)
        if reason is not None:
            return Replacement(source, new, "no_change", reason)
        self.parts = [part.replace(source, new) for part in self.parts]
        self.replaced += count
        return Replacement(source, new, "applied", None, count)

    def _occurrences(self, source: str, target: str, *, guarded: bool) -> tuple[int, str | None]:
        """How often the source occurs, and why it is not replaced, if it is not."""
        # The blank guard exists for two arguments only; with one, a single space deletes every space.
        if not source or (guarded and source == " "):
            return 0, "blank source"
        self.replacements += 1
        if self.replacements > MOST_REPLACEMENTS:
            return 0, "too many replacements"
        count = sum(part.count(source) for part in self.parts)
        if not count:
            return 0, "source not found"
        growth = count * (len(target) - len(source))
        too_long = growth > 0 and sum(map(len, self.parts)) + growth > self.most_chars
        return count, "growth beyond the bound" if too_long else None

    def finish(self) -> OperationsResult:
        """Count the errors of ranges beyond the end, and what is to be removed."""
        beyond = sum(max(span) > self.last_line for span in _merged_as_original(self.ranges))
        ranges = [(self.first_line, self.last_line)] if self.everything else self.ranges
        return OperationsResult(
            lines=tuple(line for part in self.parts for line in part.split("\n")),
            removed=tuple(_inside(ranges, self.first_line, self.last_line)),
            errors=self.errors + beyond,
            replaced=self.replaced,
            steps=tuple(self.steps),
        )


def _merged_as_original(ranges: Iterable[Range]) -> list[Range]:
    """Overlapping or touching ranges merged, reversed ones too: the original counts errors on these."""
    merged: list[Range] = []
    for start, end in sorted(ranges, key=lambda item: item[0]):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _inside(ranges: Iterable[Range], first: int, last: int) -> list[Range]:
    """The lines of `first..last` that the ranges really name, as disjoint ascending spans."""
    clipped = [(max(start, first), min(end, last)) for start, end in ranges]
    return _merged_as_original(span for span in clipped if span[0] <= span[1])


def _without(lines: Sequence[str], removed: Iterable[Range]) -> list[str]:
    """`lines` without those in the disjoint ascending spans."""
    kept: list[str] = []
    position = 0
    for start, end in removed:
        kept.extend(lines[position:start])
        position = end + 1
    kept.extend(lines[position:])
    return kept
