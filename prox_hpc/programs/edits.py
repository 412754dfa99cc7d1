"""What the applied normalisations did to the lines, in the coordinates of the original lines.

Execution replaces and forgets where. Whoever shows a document to a person needs to know which characters of it read
otherwise now; this module works that out from the operations' outcomes, so that execution itself stays fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prox_hpc.programs.execute import Outcome
from prox_hpc.programs.language import Normalize

_Edit = tuple[int, int, int]
"""Start and end of a replaced stretch in the text as it is now, and how many characters longer it was originally."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """Columns `start` to `end` (excluded, in characters) of the original line number `line` now read `target`."""

    line: int
    start: int
    end: int
    target: str


def replacements(lines: Sequence[str], outcomes: Iterable[Outcome], first_line: int = 0) -> tuple[Replacement, ...]:
    """The applied normalisations of one program, composed: disjoint, in ascending order, none of them without effect.

    lines: the chunk's original lines (with profile prox_v1 the document's), numbered from `first_line`. outcomes: of
        the program on these lines. Where a later operation touched what an earlier one wrote, the two are one
        replacement. Each operation costs time linear in the text.
    Replacing them in the original lines gives the lines `execute` makes before it removes any.
    """
    text = original = "\n".join(lines)
    edits: list[_Edit] = []
    for outcome in outcomes:
        if outcome.outcome == "applied" and isinstance(outcome.op, Normalize):
            source, target = outcome.op.source_str, outcome.op.target_str
            found = [(start, start + len(source)) for start in _occurrences(text, source)]
            edits = _composed(edits, found, len(target) - len(source))
            text = text.replace(source, target)
    return tuple(_by_line(lines, first_line, original, text, edits))


def _occurrences(text: str, source: str) -> Iterator[int]:
    """Where `str.replace` finds the source: from the left, without overlaps."""
    start = text.find(source)
    while start >= 0:
        yield start
        start = text.find(source, start + len(source))


def _composed(edits: list[_Edit], found: list[tuple[int, int]], growth: int) -> list[_Edit]:
    """Earlier edits and new occurrences, overlapping ones united, with the places they have after the replacement.

    A stretch that was deleted has no width now: it belongs to an occurrence only where it lies inside of one.
    """
    # (start, end, characters lost earlier, characters gained now); both lists are sorted, so sorting is linear
    items = sorted([(*edit, 0) for edit in edits] + [(start, end, 0, growth) for start, end in found])
    composed: list[_Edit] = []
    united_end = -1  # of the stretch last added, in the text before the replacement
    moved = 0  # by how much the occurrences so far move what follows
    for start, end, lost, gained in items:
        if start < united_end:
            first, _, lost_before = composed.pop()
            united_end = max(united_end, end)
        else:
            first, lost_before, united_end = start + moved, 0, end
        moved += gained
        composed.append((first, united_end + moved, lost_before + lost - gained))
    return composed


def _by_line(
    lines: Sequence[str], first_line: int, original: str, text: str, edits: list[_Edit]
) -> Iterator[Replacement]:
    """Edits of the text now as replacements in the original lines; those that came to nothing are left out."""
    number = line_start = 0
    behind = 0  # the original place minus the place now, of what follows the edits so far
    for start, end, lost in edits:
        original_start, original_end = start + behind, end + behind + lost
        behind += lost
        target = text[start:end]
        if original[original_start:original_end] == target:
            continue
        while line_start + len(lines[number]) < original_start:
            line_start += len(lines[number]) + 1
            number += 1
        yield Replacement(first_line + number, original_start - line_start, original_end - line_start, target)
