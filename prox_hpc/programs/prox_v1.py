"""The released ProX executor, bug for bug, for parity tests and for replaying the outputs of the released refiners.

It reads raw program text, once for the whole document (all chunk outputs joined by line feeds), by looking for
parentheses, commas and equal signs, and so misreads much of what a refiner can write; the facts sheet's table 1.6 lists
how, and a test holds this module to it row by row. Written anew from that behaviour. It departs from the original only
where the original would take the machine down: a huge range of lines is kept as a range, growth is bounded, and a text
without words gives an empty result where the original divides by zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# The original bounds nothing: a few replacements of short strings by long ones would fill the memory.
_MOST_GROWTH_RATIO = 4
_MOST_GROWTH_CHARS = 65_536

MAX_ERRORS = 2
"""From this many errors on, pooled over the document's chunks, the original text comes back."""

Did = Literal["applied", "no_change"]
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Removal:
    """A removal as the original understood it: inclusive line numbers, perhaps not what the program said."""

    start: int
    end: int
    outcome: Did
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """A replacement as the original understood it."""

    source: str
    target: str
    outcome: Did
    reason: str | None = None


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
    steps: tuple[Removal | Replacement, ...]


@dataclass(frozen=True, slots=True)
class ProxV1Result:
    """A document after the original's operations and post-checks.

    text: the result, empty if the document is to go. verdict: which post-check decided. operations: what was done
    before the checks.
    """

    text: str
    verdict: Literal["accepted", "reverted", "removed too much", "too few words", "no words"]
    operations: OperationsResult


def drops(program_text: str) -> bool:
    """The original's doc stage: the document goes if "drop" stands anywhere in the output."""
    return "drop" in program_text


def execute_prox_v1(
    text: str,
    program_text: str,
    *,
    threshold_1: float = 0.0,
    threshold_2: float = 0.95,
    error_op: int = MAX_ERRORS,
    min_words: int = 11,
) -> ProxV1Result:
    """Operations on the whole document, then the post-checks in the original's order (words = whitespace split).

    threshold_1: least share of words kept to accept. threshold_2: share of words removed from which the document goes.
    error_op: errors from which the program is ignored. min_words: with fewer words left the document goes, even if
    it was not edited.
    """
    result = run_operations(text, program_text)
    refined = "\n".join(_without(result.lines, result.removed))
    before, after = len(text.split()), len(refined.split())
    few_errors = result.errors < error_op
    if not before:
        return ProxV1Result("", "no words", result)
    if after / before <= 1 - threshold_2 and few_errors:
        return ProxV1Result("", "removed too much", result)
    if after < min_words:
        return ProxV1Result("", "too few words", result)
    if after / before >= threshold_1 and few_errors:
        return ProxV1Result(refined, "accepted", result)
    return ProxV1Result(text, "reverted", result)


def run_operations(text: str, program_text: str, first_line: int = 0) -> OperationsResult:
    """The operations without post-checks.

    first_line: the number of the text's first line; the original knows only 0. Each replacement costs a pass over the
    text, as in the original.
    """
    state = _State(text, first_line)
    for line in program_text.strip(" ").split("\n"):
        if line.startswith("remove_lines"):
            state.remove_all() if "all=True" in line else state.remove(line)
        elif line.startswith("normalize"):
            state.normalize(line)
    return state.finish()


class _State:
    """The text and the counters while a program's lines are read one after the other."""

    def __init__(self, text: str, first_line: int) -> None:
        self.text = text
        self.first_line = first_line
        self.last_line = first_line + text.count("\n")
        self.most_chars = len(text) * (1 + _MOST_GROWTH_RATIO) + _MOST_GROWTH_CHARS
        self.ranges: list[Range] = []
        self.everything = False
        self.errors = 0
        self.replaced = 0
        self.steps: list[Removal | Replacement] = []

    def remove_all(self) -> None:
        self.everything = True
        self.steps.append(Removal(self.first_line, self.last_line, "applied", "all=True"))

    def remove(self, line: str) -> None:
        """Two comma-separated parts, each `anything=integer`; a positional call has no `=` and is an error."""
        parts = self._parts(line)
        if parts is None:
            return
        try:
            start, end = int(parts[0].split("=")[1]), int(parts[1].split("=")[1])
        except (IndexError, ValueError):
            self.errors += 1
            return
        self.ranges.append((start, end))
        hits = max(start, self.first_line) <= min(end, self.last_line)
        self.steps.append(Removal(start, end, "applied") if hits else Removal(start, end, "no_change", "no such line"))

    def normalize(self, line: str) -> None:
        """One or two parts, `anything="string"`; three or more (a comma in a string) are ignored without an error."""
        parts = self._parts(line)
        if parts is None or len(parts) > 2:
            return
        try:
            source, *rest = [part.split("=")[1].strip('"') for part in parts]
        except IndexError:
            self.errors += 1
            return
        self._replace(source, rest[0] if rest else "", guarded=bool(rest))

    def _parts(self, line: str) -> list[str] | None:
        """What stands from the first `(` to the first `)`, split at commas; without `)`, all but the last character."""
        start = line.find("(") + 1
        if not start:
            self.errors += 1
            return None
        end = line.find(")")
        if end < 0:
            self.errors += 1
        return line[start:end].split(",")

    def _replace(self, source: str, target: str, *, guarded: bool) -> None:
        reason = self._why_not(source, target, guarded)
        if reason is not None:
            self.steps.append(Replacement(source, target, "no_change", reason))
            return
        self.replaced += self.text.count(source)
        self.text = self.text.replace(source, target)
        self.steps.append(Replacement(source, target, "applied"))

    def _why_not(self, source: str, target: str, guarded: bool) -> str | None:
        # The blank guard exists for two arguments only; with one, a single space deletes every space.
        if not source or (guarded and source == " "):
            return "blank source"
        count = self.text.count(source)
        if not count:
            return "source not found"
        if len(self.text) + count * (len(target) - len(source)) > self.most_chars:
            return "growth beyond the bound"
        return None

    def finish(self) -> OperationsResult:
        for start, end in _merged_as_original(self.ranges):
            if start > self.last_line or end > self.last_line:
                self.errors += 1
        ranges = [(self.first_line, self.last_line)] if self.everything else self.ranges
        return OperationsResult(
            lines=tuple(self.text.split("\n")),
            removed=tuple(_inside(ranges, self.first_line, self.last_line)),
            errors=self.errors,
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


def _without(lines: tuple[str, ...], removed: Iterable[Range]) -> list[str]:
    kept: list[str] = []
    position = 0
    for start, end in removed:
        kept.extend(lines[position:start])
        position = end + 1
    kept.extend(lines[position:])
    return kept
