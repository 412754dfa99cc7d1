"""A parsed program applied to the lines of its chunk.

Execution never trusts the program: an operation that cannot apply is refused whole, with its reason, and the others
stand. Normalisations come first, in order, each on the result of the one before; removals come after and refer to the
original line numbers, which stay valid because no replacement can add or remove a line break.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prox_hpc.programs import prox_v1
from prox_hpc.programs.language import (
    DEFAULT_CAPS,
    Caps,
    DropDoc,
    KeepChunk,
    KeepDoc,
    Normalize,
    Operation,
    RemoveLines,
    Status,
)
from prox_hpc.programs.parse import Program

Applied = Literal["applied", "refused", "no_change"]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one operation; `reason` is a short fixed phrase when it was refused or changed nothing."""

    op: Operation
    outcome: Applied
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """A chunk after its program.

    lines: the remaining lines, without line breaks; empty if all were removed or the document was dropped.
    dropped: a doc-stage program said `drop_doc()`.
    status: the final status, "partial" if the program parsed and an operation was refused.
    outcomes: one per operation, in the program's order; empty if the program was malformed.
    removed: removed lines as maximal inclusive spans of global line numbers, ascending.
    replaced: occurrences that normalisations replaced.
    """

    lines: tuple[str, ...]
    dropped: bool
    status: Status
    outcomes: tuple[Outcome, ...] = ()
    removed: tuple[Span, ...] = ()
    replaced: int = 0


def execute(
    program: Program,
    lines: Sequence[str],
    *,
    first_line: int = 0,
    profile: str = "v1",
    caps: Caps = DEFAULT_CAPS,
) -> ChunkResult:
    """Apply `program` to `lines`, which are lines `first_line`, `first_line + 1`, ... of the document.

    lines: a document's (or chunk's) text split on line feeds, so none of them contains one.
    profile: "v1"; "deletion_only" (RefineX), which refuses every normalisation; "prox_v1", which ignores the parsed
        operations and reads the program's text as the released ProX executor does (the lines are then meant to be the
        whole document). An unknown profile is an error of the caller: ValueError.
    """
    if profile == "prox_v1":
        return _execute_prox_v1(program, lines, first_line)
    if profile not in ("v1", "deletion_only"):
        raise ValueError(f"unknown profile {profile!r}")
    if program.status == "malformed":
        return ChunkResult(tuple(lines), False, "malformed")
    if program.stage == "doc":
        return _execute_doc(program, lines)
    return _execute_chunk(program, lines, first_line, profile == "deletion_only", caps)


def _execute_doc(program: Program, lines: Sequence[str]) -> ChunkResult:
    """A doc-stage program: at least one `drop_doc()` drops (keep and drop together do not parse)."""
    outcomes = tuple(_doc_outcome(operation) for operation in program.operations)
    if any(isinstance(operation, DropDoc) for operation in program.operations):
        return ChunkResult((), True, program.status, outcomes)
    return ChunkResult(tuple(lines), False, program.status, outcomes)


def _doc_outcome(operation: Operation) -> Outcome:
    return Outcome(operation, "applied" if isinstance(operation, DropDoc) else "no_change")


def _execute_chunk(
    program: Program, lines: Sequence[str], first_line: int, deletion_only: bool, caps: Caps
) -> ChunkResult:
    edited = ChunkText(lines, caps)
    last_line = first_line + len(lines) - 1
    outcomes: list[Outcome] = []
    spans: list[Span] = []
    refused = False
    for operation in program.operations:
        outcome = _apply(operation, edited, first_line, last_line, deletion_only)
        refused = refused or outcome.outcome == "refused"
        if outcome.outcome == "applied" and isinstance(operation, RemoveLines):
            spans.append((operation.line_start, operation.line_end))
        outcomes.append(outcome)
    removed = merge_spans(spans)
    status: Status = "partial" if refused and program.status == "ok" else program.status
    kept = without_spans(edited.lines(), removed, first_line)
    return ChunkResult(kept, False, status, tuple(outcomes), removed, edited.replaced)


def _apply(operation: Operation, text: ChunkText, first_line: int, last_line: int, deletion_only: bool) -> Outcome:
    """Apply a normalisation, or judge a removal (which the caller applies at the end)."""
    if isinstance(operation, RemoveLines):
        reason = removal_refusal(operation, first_line, last_line)
        return Outcome(operation, "applied") if reason is None else Outcome(operation, "refused", reason)
    if isinstance(operation, Normalize):
        if deletion_only:
            return Outcome(operation, "refused", "not in this profile")
        return text.normalize(operation)
    if isinstance(operation, KeepChunk | KeepDoc):
        return Outcome(operation, "no_change")
    return Outcome(operation, "refused", "not in this stage")  # only a hand-made Program gets here


def removal_refusal(operation: RemoveLines, first_line: int, last_line: int) -> str | None:
    """Why a removal cannot apply to lines `first_line` to `last_line` (inclusive), or None if it can."""
    if operation.line_start > operation.line_end:
        return "start after end"
    if operation.line_start < first_line or operation.line_end > last_line:
        return "line outside the chunk"
    return None


def normalize_refusal(operation: Normalize, caps: Caps) -> str | None:
    """Why a normalisation cannot apply to any text, or None if it may."""
    source, target = operation.source_str, operation.target_str
    if len(source) > caps.string_chars or len(target) > caps.string_chars:
        return "string too long"
    if not source or source.isspace():
        return "blank source"
    if "\n" in source:
        return "source of several lines"
    if "\n" in target or "\r" in target:
        return "line break in target"
    if "\0" in target:
        return "NUL in target"
    if _has_surrogate(source) or _has_surrogate(target):
        return "lone surrogate"
    return None


def _has_surrogate(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class ChunkText:
    """A chunk's text while normalisations are applied to it; joined once, split once, however many there are."""

    __slots__ = ("_caps", "_lines", "_most_chars", "_text", "replaced")

    def __init__(self, lines: Sequence[str], caps: Caps) -> None:
        self._lines = lines
        self._caps = caps
        self._text: str | None = None
        self._most_chars = 0
        self.replaced = 0

    def normalize(self, operation: Normalize) -> Outcome:
        """Replace every occurrence of the source, or refuse; linear in the chunk's text."""
        reason = normalize_refusal(operation, self._caps)
        if reason is not None:
            return Outcome(operation, "refused", reason)
        text = self._joined()
        source, target = operation.source_str, operation.target_str
        count = text.count(source)
        if not count:
            return Outcome(operation, "refused", "source not found")
        if source == target:
            return Outcome(operation, "no_change", "source equals target")
        if len(text) + count * (len(target) - len(source)) > self._most_chars:
            return Outcome(operation, "refused", "growth beyond the cap")
        self._text = text.replace(source, target)
        self.replaced += count
        return Outcome(operation, "applied")

    def lines(self) -> Sequence[str]:
        """The chunk's lines as they are now; as many as there were."""
        return self._text.split("\n") if self.replaced and self._text is not None else self._lines

    def _joined(self) -> str:
        if self._text is None:
            text = "\n".join(self._lines)
            self._most_chars = int(len(text) * (1 + self._caps.growth_ratio)) + self._caps.growth_chars
            self._text = text
        return self._text


def merge_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Inclusive spans, in any order, overlapping or not, as maximal runs in ascending order."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


def without_spans(lines: Sequence[str], spans: Iterable[Span], first_line: int) -> tuple[str, ...]:
    """`lines` (numbered from `first_line`) without those in the disjoint, ascending inclusive spans."""
    kept: list[str] = []
    position = 0
    for start, end in spans:
        kept.extend(lines[position : start - first_line])
        position = end + 1 - first_line
    kept.extend(lines[position:])
    return tuple(kept)


def _execute_prox_v1(program: Program, lines: Sequence[str], first_line: int) -> ChunkResult:
    """The released executor's reading of the program's text, without its document checks."""
    if program.stage == "doc":
        dropped = prox_v1.drops(program.text)
        return ChunkResult(() if dropped else tuple(lines), dropped, "ok")
    return as_chunk_result(prox_v1.run_operations("\n".join(lines), program.text, first_line), first_line)


def as_chunk_result(result: prox_v1.OperationsResult, first_line: int = 0) -> ChunkResult:
    """What the released executor did, in this module's terms; "partial" if it counted an error."""
    outcomes = tuple(
        Outcome(RemoveLines(step.start, step.end), step.outcome, step.reason)
        if isinstance(step, prox_v1.Removal)
        else Outcome(Normalize(step.source, step.target), step.outcome, step.reason)
        for step in result.steps
    )
    status: Status = "partial" if result.errors else "ok"
    kept = without_spans(result.lines, result.removed, first_line)
    return ChunkResult(kept, False, status, outcomes, result.removed, result.replaced)
