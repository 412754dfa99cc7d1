"""A parsed program applied to the lines of its chunk.

Execution never trusts the program: an operation that cannot apply is refused whole, with its reason, and the others
stand. Normalisations come first, in order, each on the result of the one before; removals come after and refer to the
original line numbers, which stay valid because no replacement can add or remove a line break.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import AnyStr, Generic, Literal, NamedTuple

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
    too_long,
)
from prox_hpc.programs.parse import Program

Applied = Literal["applied", "refused", "no_change"]
Span = tuple[int, int]


class Outcome(NamedTuple):
    """What became of one operation; a tuple because millions are made.

    reason: a short fixed phrase when it was refused or changed nothing. affected: the lines that an applied removal
    names, or the occurrences that an applied normalisation replaced; else 0.
    """

    op: Operation
    outcome: Applied
    reason: str | None = None
    affected: int = 0


class ChunkResult(NamedTuple):
    """A chunk after its program.

    lines: the remaining lines, without line breaks; empty if all were removed or the document was dropped.
    dropped: a doc-stage program said `drop_doc()`.
    status: the final status, "partial" if the program parsed and an operation was refused.
    outcomes: one per operation, in the program's order; empty if the program was malformed.
    removed: removed lines as maximal inclusive spans of global line numbers, ascending.
    replaced: occurrences that normalisations replaced; `replacements(lines, outcomes, first_line)` tells where.
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
    Executing normalisations again on their own result changes nothing if no target holds a character of any source,
    either no target is empty or every source is a single character, and none was refused for growth.
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
    return _execute_chunk(program, lines, first_line, profile, caps)


def _execute_doc(program: Program, lines: Sequence[str]) -> ChunkResult:
    """A doc-stage program: at least one `drop_doc()` drops (keep and drop together do not parse)."""
    outcomes = tuple(_doc_outcome(operation) for operation in program.operations)
    if any(isinstance(operation, DropDoc) for operation in program.operations):
        return ChunkResult((), True, program.status, outcomes)
    return ChunkResult(tuple(lines), False, program.status, outcomes)


def _doc_outcome(operation: Operation) -> Outcome:
    return Outcome(operation, "applied" if isinstance(operation, DropDoc) else "no_change")


class Edit(NamedTuple):
    """What a chunk-stage program does to a chunk, its lines not yet put together."""

    status: Status
    outcomes: tuple[Outcome, ...]
    removed: tuple[Span, ...]


def edit_chunk(program: Program, text: ChunkText[AnyStr], first_line: int, profile: str, caps: Caps) -> Edit:
    """Apply the normalisations of a chunk-stage program to `text` and judge its removals."""
    last_line = first_line + text.line_count - 1
    outcomes: list[Outcome] = []
    spans: list[Span] = []
    refused = False
    for operation in program.operations:
        if isinstance(operation, RemoveLines):
            reason = removal_refusal(operation, first_line, last_line, caps)
            if reason is None:
                span = operation.line_start, operation.line_end
                spans.append(span)
                outcome = Outcome(operation, "applied", None, span[1] - span[0] + 1)
            else:
                outcome = Outcome(operation, "refused", reason)
        elif isinstance(operation, Normalize):
            outcome = text.normalize(operation, caps) if profile != "deletion_only" else _not_here(operation, "profile")
        elif isinstance(operation, KeepChunk | KeepDoc):
            outcome = Outcome(operation, "no_change")
        else:  # only a hand-made Program holds an operation of the other stage
            outcome = _not_here(operation, "stage")
        refused = refused or outcome.outcome == "refused"
        outcomes.append(outcome)
    status: Status = "partial" if refused and program.status == "ok" else program.status
    return Edit(status, tuple(outcomes), merge_spans(spans))


def _execute_chunk(program: Program, lines: Sequence[str], first_line: int, profile: str, caps: Caps) -> ChunkResult:
    text = ChunkText("\n", None, lines, len(lines))
    edit = edit_chunk(program, text, first_line, profile, caps)
    kept = without_spans(text.lines(), edit.removed, first_line)
    return ChunkResult(tuple(kept), False, edit.status, edit.outcomes, edit.removed, text.replaced)


def _not_here(operation: Operation, place: str) -> Outcome:
    return Outcome(operation, "refused", f"not in this {place}")


def removal_refusal(operation: RemoveLines, first_line: int, last_line: int, caps: Caps = DEFAULT_CAPS) -> str | None:
    """Why a removal cannot apply to lines `first_line` to `last_line` (inclusive), or None if it can."""
    start, end = operation.line_start, operation.line_end
    if first_line <= start <= end <= last_line:
        return None
    if max(abs(start), abs(end)) >= too_long(caps):
        return "integer too long"
    return "start after end" if start > end else "line outside the chunk"


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


class ChunkText(Generic[AnyStr]):
    """A chunk's text while normalisations are applied to it, joined or split only when it must be.

    Text, or its UTF-8: strings are found and replaced in either alike. line_count: lines of the chunk; no normalisation
    changes it. replaced: occurrences replaced so far. touched: a bound for the document checks (see
    `document._enough_left`): over all replacements made, the length of the target and 3 more.
    """

    __slots__ = ("_before", "_lines", "_newline", "_text", "line_count", "replaced", "touched")

    def __init__(self, newline: AnyStr, text: AnyStr | None, lines: Sequence[AnyStr] | None, line_count: int) -> None:
        """newline: a line feed as text or bytes. text or lines may be missing, not both."""
        self._newline: AnyStr = newline
        self._text: AnyStr | None = text
        self._lines: Sequence[AnyStr] | None = lines
        self._before: AnyStr | None = None
        self.line_count = line_count
        self.replaced = 0
        self.touched = 0

    def normalize(self, operation: Normalize, caps: Caps = DEFAULT_CAPS) -> Outcome:
        """Replace every occurrence of the source, or refuse; linear in the chunk's text."""
        reason = normalize_refusal(operation, caps)
        if reason is not None:
            return Outcome(operation, "refused", reason)
        source, target = self._as_text_is(operation.source_str), self._as_text_is(operation.target_str)
        # Splitting searches the text once; replacing searches it twice, and counting a third time.
        pieces = self.text().split(source)
        count = len(pieces) - 1
        if not count:
            return Outcome(operation, "refused", "source not found")
        if source == target:
            return Outcome(operation, "no_change", "source equals target")
        if self._outgrows(operation, count, caps):
            return Outcome(operation, "refused", "growth beyond the cap")
        self._text = target.join(pieces)
        self._lines = None
        self.replaced += count
        self.touched += count * (len(target) + 3)
        return Outcome(operation, "applied", None, count)

    def _outgrows(self, operation: Normalize, count: int, caps: Caps) -> bool:
        """Whether so many replacements would make the chunk longer than the cap, in characters."""
        if self._before is None:
            self._before = self.text()
        growth = len(operation.target_str) - len(operation.source_str)
        if growth <= 0:
            return False
        most = int(character_count(self._before) * (1 + caps.growth_ratio)) + caps.growth_chars
        return character_count(self.text()) + count * growth > most

    def _as_text_is(self, string: str) -> AnyStr:
        return string if isinstance(self._newline, str) else string.encode()  # type: ignore[return-value]

    def text(self) -> AnyStr:
        """The text as it is now."""
        if self._text is None:
            self._text = self._newline.join(self._lines or ())
        return self._text

    def lines(self) -> Sequence[AnyStr]:
        """The lines as they are now; as many as there were."""
        if self._lines is None:
            self._lines = self.text().split(self._newline)
        return self._lines


def character_count(text: str | bytes) -> int:
    """Characters of a text or of its UTF-8."""
    return len(text) if isinstance(text, str) else len(decoded(text))


def decoded(utf8: bytes) -> str:
    """The text of UTF-8 that may hold lone surrogates as if they could be encoded."""
    return utf8.decode("utf-8", "surrogatepass")


def merge_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Inclusive spans, in any order, overlapping or not, as maximal runs in ascending order."""
    if len(spans) < 2:
        return tuple(spans)
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


def without_spans(lines: Sequence[AnyStr], spans: Sequence[Span], first_line: int) -> Sequence[AnyStr]:
    """`lines` (numbered from `first_line`) without those in the disjoint, ascending inclusive spans."""
    if not spans:
        return lines
    kept: list[AnyStr] = []
    position = 0
    for start, end in spans:
        kept += lines[position : start - first_line]
        position = end + 1 - first_line
    kept += lines[position:]
    return kept


def _execute_prox_v1(program: Program, lines: Sequence[str], first_line: int) -> ChunkResult:
    """The released executor's reading of the program's text, without its document checks."""
    if program.stage == "doc":
        dropped = prox_v1.drops(program.text)
        return ChunkResult(() if dropped else tuple(lines), dropped, "ok")
    return as_chunk_result(prox_v1.run_operations("\n".join(lines), program.text, first_line), first_line)


def as_chunk_result(result: prox_v1.OperationsResult, first_line: int = 0) -> ChunkResult:
    """What the released executor did, in this module's terms; "partial" if it counted an error."""
    outcomes = tuple(
        Outcome(RemoveLines(step.start, step.end), step.outcome, step.reason, step.affected)
        if isinstance(step, prox_v1.Removal)
        else Outcome(Normalize(step.source, step.target), step.outcome, step.reason, step.affected)
        for step in result.steps
    )
    status: Status = "partial" if result.errors else "ok"
    kept = without_spans(result.lines, result.removed, first_line)
    return ChunkResult(tuple(kept), False, status, outcomes, result.removed, result.replaced)
