"""A whole document after its programs: chunks executed each by itself, joined, and checked.

A bad program costs its chunk, never the document; the document-level checks of ProX then drop what editing emptied. The
result says what happened to every chunk and operation, so that any count in a report can be traced back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from prox_hpc.programs.execute import Outcome, Span, as_chunk_result, execute, merge_spans
from prox_hpc.programs.language import DEFAULT_CAPS, Caps
from prox_hpc.programs.parse import parse
from prox_hpc.programs.prox_v1 import execute_prox_v1

ChunkStatus = Literal["ok", "partial", "truncated", "malformed", "oversized", "no_program", "misplaced"]
"""A chunk's final status: its program's, or why no program was executed on it."""


@dataclass(frozen=True, slots=True)
class DocumentChecks:
    """When an edited document is dropped after all; the defaults are the released ProX's.

    max_removed: share of words (whitespace split) removed from which it is dropped. min_words: with fewer words left it
    is dropped. Neither touches a document that no program changed.
    """

    max_removed: float = 0.95
    min_words: int = 11


DEFAULT_CHECKS = DocumentChecks()


@dataclass(frozen=True, slots=True)
class ChunkProgram:
    """What the refiner wrote for lines `first_line` to `first_line + line_count - 1` of a document.

    program_text: None if the chunk was not sent to the refiner. truncated: generation hit the token limit.
    oversized: a single line over the token limit; it passes through whatever the program says.
    """

    first_line: int
    line_count: int
    program_text: str | None
    truncated: bool = False
    oversized: bool = False


@dataclass(frozen=True, slots=True)
class ChunkReport:
    """What became of one chunk: its final status, why (if its program is at fault), its operations' outcomes."""

    first_line: int
    line_count: int
    status: ChunkStatus
    reason: str | None = None
    operations: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentResult:
    """A document after its programs.

    text: the refined text, None if dropped. reason: why it was dropped, else None.
    statuses: chunks by final status. operations: outcomes over all chunks, in order. chunks: the same by chunk.
    removed: removed lines as inclusive spans of document line numbers. removed_lines: how many. replaced: occurrences
    that normalisations replaced. words_in, words_out: whitespace-split words before and after editing; of a document
    that the checks dropped, `words_out` are those it had left when it was checked.
    """

    text: str | None
    outcome: Literal["kept", "edited", "dropped"]
    reason: str | None
    statuses: dict[str, int]
    operations: tuple[Outcome, ...]
    removed_lines: int
    replaced: int
    words_in: int
    words_out: int
    removed: tuple[Span, ...] = ()
    chunks: tuple[ChunkReport, ...] = ()


@dataclass(slots=True)
class _Edited:
    """A document's lines and provenance while its chunks are executed."""

    lines: list[str] = field(default_factory=list)
    removed: list[Span] = field(default_factory=list)
    replaced: int = 0
    reports: list[ChunkReport] = field(default_factory=list)


def refine_document(
    text: str,
    chunk_programs: Sequence[ChunkProgram],
    *,
    drop: bool = False,
    profile: str = "v1",
    checks: DocumentChecks = DEFAULT_CHECKS,
    caps: Caps = DEFAULT_CAPS,
) -> DocumentResult:
    """Execute a document's chunk programs and check the result; time linear in text plus programs.

    chunk_programs: in document order. Lines that no chunk covers pass through; a chunk that does not lie within the
        document behind the one before it is counted as "misplaced" and its program ignored.
    drop: the doc stage dropped the document; no chunk program is then executed.
    profile: "prox_v1" takes all program texts together as one program, with the original's own checks, in which
        `checks` stand for its thresholds.
    """
    words_in = len(text.split())
    if drop:
        return DocumentResult(None, "dropped", "doc program", {}, (), 0, 0, words_in, 0)
    if profile == "prox_v1":
        return _refine_prox_v1(text, chunk_programs, checks, words_in)
    lines = text.split("\n")
    edited = _execute_chunks(lines, chunk_programs, profile, caps)
    refined = "\n".join(edited.lines)
    words_out = len(refined.split()) if edited.replaced else words_in - _words_removed(lines, edited.removed)
    reason = None if refined == text else _failed_check(words_in, words_out, checks)
    return _result(text, refined, reason, edited, words_in, words_out)


def _execute_chunks(lines: list[str], chunk_programs: Sequence[ChunkProgram], profile: str, caps: Caps) -> _Edited:
    edited = _Edited()
    position = 0
    for chunk in chunk_programs:
        stop = chunk.first_line + chunk.line_count
        if chunk.first_line < position or chunk.line_count < 0 or stop > len(lines):
            edited.reports.append(ChunkReport(chunk.first_line, chunk.line_count, "misplaced"))
            continue
        edited.lines.extend(lines[position : chunk.first_line])
        _execute_chunk(edited, chunk, lines[chunk.first_line : stop], profile, caps)
        position = stop
    edited.lines.extend(lines[position:])
    return edited


def _execute_chunk(edited: _Edited, chunk: ChunkProgram, lines: list[str], profile: str, caps: Caps) -> None:
    """Execute one chunk's program, if it has one, and add its lines and report to `edited`."""
    if chunk.oversized or chunk.program_text is None:
        edited.lines.extend(lines)
        edited.reports.append(ChunkReport(chunk.first_line, chunk.line_count, _unprogrammed(chunk)))
        return
    program = parse(chunk.program_text, "chunk", truncated=chunk.truncated, caps=caps)
    result = execute(program, lines, first_line=chunk.first_line, profile=profile, caps=caps)
    edited.lines.extend(result.lines)
    edited.removed.extend(result.removed)
    edited.replaced += result.replaced
    edited.reports.append(
        ChunkReport(chunk.first_line, chunk.line_count, result.status, program.reason, result.outcomes)
    )


def _unprogrammed(chunk: ChunkProgram) -> ChunkStatus:
    return "oversized" if chunk.oversized else "no_program"


def _words_removed(lines: list[str], removed: list[Span]) -> int:
    """Words of the removed lines: no word crosses a line break, so what is left need not be split again."""
    return sum(len(line.split()) for start, end in removed for line in lines[start : end + 1])


def _failed_check(words_in: int, words_out: int, checks: DocumentChecks) -> str | None:
    """Why an edited document is dropped, or None. The tolerance makes exactly 95% count as 95% in floating point."""
    if words_in and (words_in - words_out) / words_in >= checks.max_removed - 1e-12:
        return "removed too much"
    if words_out < checks.min_words:
        return "too few words"
    return None


def _result(
    text: str, refined: str, reason: str | None, edited: _Edited, words_in: int, words_out: int
) -> DocumentResult:
    dropped = reason is not None
    removed = merge_spans(edited.removed)
    return DocumentResult(
        text=None if dropped else refined,
        outcome="dropped" if dropped else "kept" if refined == text else "edited",
        reason=reason,
        statuses=dict(Counter(report.status for report in edited.reports)),
        operations=tuple(outcome for report in edited.reports for outcome in report.operations),
        removed_lines=sum(end - start + 1 for start, end in removed),
        replaced=edited.replaced,
        words_in=words_in,
        words_out=words_out,
        removed=removed,
        chunks=tuple(edited.reports),
    )


def _refine_prox_v1(
    text: str, chunk_programs: Sequence[ChunkProgram], checks: DocumentChecks, words_in: int
) -> DocumentResult:
    """The original: one program for the document, errors pooled, its own post-checks."""
    texts = [chunk.program_text for chunk in chunk_programs if chunk.program_text is not None]
    checked = execute_prox_v1(text, "\n".join(texts), threshold_2=checks.max_removed, min_words=checks.min_words)
    executed = as_chunk_result(checked.operations)
    line_count = text.count("\n") + 1
    if checked.verdict == "reverted":
        undone = tuple(Outcome(outcome.op, "refused", "too many errors") for outcome in executed.outcomes)
        edited = _Edited(reports=[ChunkReport(0, line_count, executed.status, "too many errors", undone)])
        return _result(text, text, None, edited, words_in, words_in)
    edited = _Edited(
        removed=list(executed.removed),
        replaced=executed.replaced,
        reports=[ChunkReport(0, line_count, executed.status, None, executed.outcomes)],
    )
    reason = None if checked.verdict == "accepted" else checked.verdict
    refined = "\n".join(executed.lines)
    return _result(text, refined, reason, edited, words_in, len(refined.split()))
