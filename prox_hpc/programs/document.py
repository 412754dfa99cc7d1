"""A whole document after its programs: chunks executed each by itself, joined, and checked.

A bad program costs its chunk, never the document; the document-level checks of ProX then drop what editing emptied. The
result says what happened to every chunk and operation, so that any count in a report can be traced back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import AnyStr, Final, Generic, Literal, NamedTuple

from prox_hpc.programs.edits import Replacement, replacements
from prox_hpc.programs.execute import (
    ChunkText,
    Outcome,
    Span,
    as_chunk_result,
    decoded,
    edit_chunk,
    merge_spans,
    without_spans,
)
from prox_hpc.programs.language import DEFAULT_CAPS, Caps
from prox_hpc.programs.parse import parse
from prox_hpc.programs.prox_v1 import execute_prox_v1, join_outputs

DROPPED_BY_DOC_PROGRAM: Final = "doc program"
_CHARACTERS_PER_WORD = 10
"""A little more than English has (6): how much of a text to look at for a number of words."""

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


class ChunkProgram(NamedTuple):
    """What the refiner wrote for lines `first_line` to `first_line + line_count - 1` of a document.

    program_text: None if the chunk was not sent to the refiner. truncated: generation hit the token limit.
    oversized: a single line over the token limit; it passes through whatever the program says.
    """

    first_line: int
    line_count: int
    program_text: str | None
    truncated: bool = False
    oversized: bool = False


class ChunkReport(NamedTuple):
    """What became of one chunk: its final status, why (if its program is at fault), its operations' outcomes."""

    first_line: int
    line_count: int
    status: ChunkStatus
    reason: str | None = None
    operations: tuple[Outcome, ...] = ()


class DocumentResult(NamedTuple, Generic[AnyStr]):
    """A document after its programs.

    before, after: the text as it was and as its programs left it (of a document that the doc stage dropped, the text as
    it was); UTF-8 if UTF-8 was given. reason: why it was dropped, else None. removed: removed lines as inclusive spans
    of document line numbers, disjoint and ascending. replaced: occurrences that normalisations replaced. chunks: what
    became of each chunk.
    """

    before: AnyStr
    after: AnyStr
    outcome: Literal["kept", "edited", "dropped"]
    reason: str | None = None
    removed: tuple[Span, ...] = ()
    replaced: int = 0
    chunks: tuple[ChunkReport, ...] = ()

    @property
    def text(self) -> AnyStr | None:
        """The refined text; None if the document is dropped."""
        return None if self.outcome == "dropped" else self.after

    @property
    def statuses(self) -> dict[str, int]:
        """Chunks by final status."""
        return dict(Counter(report.status for report in self.chunks))

    @property
    def operations(self) -> tuple[Outcome, ...]:
        """Outcomes of all chunks' operations, in order."""
        return tuple(outcome for report in self.chunks for outcome in report.operations)

    @property
    def removed_lines(self) -> int:
        """Number of removed lines."""
        return sum(end - start + 1 for start, end in self.removed)

    @property
    def replacements(self) -> tuple[Replacement, ...]:
        """Where replacements were made: columns of the document's own lines, ascending. Worked out when asked for."""
        lines = (self.before if isinstance(self.before, str) else decoded(self.before)).split("\n")
        found: list[Replacement] = []
        for chunk in self.chunks:
            if chunk.operations:
                own = lines[chunk.first_line : chunk.first_line + chunk.line_count]
                found += replacements(own, chunk.operations, chunk.first_line)
        return tuple(found)

    @property
    def words_in(self) -> int:
        """Whitespace-split words of the document. Counted when asked for: it takes as long as executing a program."""
        return word_count(self.before)

    @property
    def words_out(self) -> int:
        """Words left after editing; of a document that the checks dropped, those it had left when it was checked."""
        return 0 if self.reason == DROPPED_BY_DOC_PROGRAM else word_count(self.after)


def word_count(text: str | bytes) -> int:
    """Whitespace-split words of a text or of its UTF-8."""
    return len((text if isinstance(text, str) else decoded(text)).split())


def refine_document(
    text: AnyStr,
    chunk_programs: Sequence[ChunkProgram],
    *,
    drop: bool = False,
    profile: str = "v1",
    checks: DocumentChecks = DEFAULT_CHECKS,
    caps: Caps = DEFAULT_CAPS,
) -> DocumentResult[AnyStr]:
    """Execute a document's chunk programs and check the result; time linear in text plus programs.

    text: the document, or its UTF-8, for who has only that and needs no more: it saves decoding and encoding.
    chunk_programs: in document order. Lines that no chunk covers pass through; a chunk that does not lie within the
        document behind the one before it is counted as "misplaced" and its program ignored.
    drop: the doc stage dropped the document; no chunk program is then executed.
    profile: "prox_v1" takes all program texts together as one program, with the original's own checks, in which
        `checks` stand for its thresholds.
    """
    if drop:
        return DocumentResult(text, text, "dropped", DROPPED_BY_DOC_PROGRAM)
    if profile == "prox_v1":
        return _refine_prox_v1(text, chunk_programs, checks)
    newline = "\n" if isinstance(text, str) else b"\n"
    edits: _Edits[AnyStr] = _Edits(newline, profile, caps)
    refined = edits.whole(text, chunk_programs[0]) if len(chunk_programs) == 1 else None
    if refined is None:
        edits = _Edits(newline, profile, caps)
        refined = edits.by_chunk(text, chunk_programs)
    reason = None if refined == text else _failed_check(text, refined, edits.touched, checks)
    return edits.result(text, refined, reason)


class _Edits(Generic[AnyStr]):
    """What a document's programs did, gathered chunk by chunk."""

    __slots__ = ("caps", "newline", "profile", "removed", "replaced", "reports", "touched")

    def __init__(self, newline: AnyStr, profile: str, caps: Caps = DEFAULT_CAPS) -> None:
        self.newline: AnyStr = newline
        self.profile = profile
        self.caps = caps
        self.removed: list[Span] = []
        self.replaced = 0
        self.touched = 0
        self.reports: list[ChunkReport] = []

    def whole(self, text: AnyStr, chunk: ChunkProgram) -> AnyStr | None:
        """The refined text if the one chunk is the whole document (most are); None, to begin anew, if it is not.

        Splitting 4 kB into lines and joining them again takes as long as all the rest, so it is done for removals only,
        and what follows the last removed line stays one piece.
        """
        if chunk.first_line:
            return None
        edited = ChunkText(self.newline, text, None, chunk.line_count)
        removed = self._edit(chunk, edited)
        lines = edited.text().split(self.newline, removed[-1][1] + 1 if removed else 0)
        if len(lines) + lines[-1].count(self.newline) != chunk.line_count:
            return None
        return self.newline.join(without_spans(lines, removed, 0))

    def by_chunk(self, text: AnyStr, chunk_programs: Sequence[ChunkProgram]) -> AnyStr:
        """The refined text of a document of several chunks."""
        lines = text.split(self.newline)
        refined: list[AnyStr] = []
        position = 0
        for chunk in chunk_programs:
            first, stop = chunk.first_line, chunk.first_line + chunk.line_count
            if first < position or chunk.line_count < 0 or stop > len(lines):
                self.reports.append(ChunkReport(first, chunk.line_count, "misplaced"))
                continue
            edited = ChunkText(self.newline, None, lines[first:stop], chunk.line_count)
            removed = self._edit(chunk, edited)
            refined += lines[position:first]
            refined += without_spans(edited.lines(), removed, first)
            position = stop
        refined += lines[position:]
        return self.newline.join(refined)

    def _edit(self, chunk: ChunkProgram, text: ChunkText[AnyStr]) -> tuple[Span, ...]:
        """Execute one chunk's program, if it has one, and report it; -> the lines to remove."""
        status: ChunkStatus
        first, count = chunk.first_line, chunk.line_count
        if chunk.oversized or chunk.program_text is None:
            status = "oversized" if chunk.oversized else "no_program"
            self.reports.append(ChunkReport(first, count, status))
            return ()
        program = parse(chunk.program_text, "chunk", truncated=chunk.truncated, caps=self.caps)
        edit = edit_chunk(program, text, first, self.profile, self.caps)
        self.removed += edit.removed
        self.replaced += text.replaced
        self.touched += text.touched
        self.reports.append(ChunkReport(first, count, edit.status, program.reason, edit.outcomes))
        return edit.removed

    def result(self, text: AnyStr, refined: AnyStr, reason: str | None) -> DocumentResult[AnyStr]:
        return DocumentResult(
            before=text,
            after=refined,
            outcome="dropped" if reason is not None else "kept" if refined == text else "edited",
            reason=reason,
            removed=merge_spans(self.removed) if len(self.reports) > 1 else tuple(self.removed),
            replaced=self.replaced,
            chunks=tuple(self.reports),
        )


def _failed_check(text: AnyStr, refined: AnyStr, touched: int, checks: DocumentChecks) -> str | None:
    """Why an edited document is dropped, or None. The tolerance makes exactly 95% count as 95% in floating point."""
    if _enough_left(text, refined, touched, checks):
        return None
    words_in, words_out = word_count(text), word_count(refined)
    if words_in and (words_in - words_out) / words_in >= checks.max_removed - 1e-12:
        return "removed too much"
    if words_out < checks.min_words:
        return "too few words"
    return None


def _enough_left(text: AnyStr, refined: AnyStr, touched: int, checks: DocumentChecks) -> bool:
    """Whether the first words of the refined text alone prove that it passes the checks.

    Nearly all documents pass here, and counting the words of 4 kB twice takes longer than executing their programs.
    A removed line of n characters (or n bytes) and its line break had at most (n + 1) / 2 words. One replacement of a
    source of n characters costs at most the source's words, (n + 1) / 2, and one more, where words on both sides become
    one. With what both do to the text's length that makes at most `lost` words; `touched` adds up 3 + the length of the
    target.
    """
    if checks.max_removed <= 0:
        return False
    lost = max(0, len(text) - len(refined) + touched + 1) // 2
    needed = max(checks.min_words, int(lost * (1 - checks.max_removed) / checks.max_removed) + 2)
    beginning = refined[: needed * _CHARACTERS_PER_WORD]
    if isinstance(beginning, str):
        return len(beginning.split()) >= needed
    return len(beginning.decode("utf-8", "ignore").split()) >= needed


def _refine_prox_v1(
    text: AnyStr, chunk_programs: Sequence[ChunkProgram], checks: DocumentChecks
) -> DocumentResult[AnyStr]:
    """The original: one program for the document, errors pooled, its own post-checks."""
    if not isinstance(text, str):
        result = _refine_prox_v1(decoded(text), chunk_programs, checks)
        after = result.after.encode("utf-8", "surrogatepass")
        return DocumentResult(text, text if after == text else after, *result[2:])
    texts = [chunk.program_text for chunk in chunk_programs if chunk.program_text is not None]
    checked = execute_prox_v1(text, join_outputs(texts), threshold_2=checks.max_removed, min_words=checks.min_words)
    executed = as_chunk_result(checked.operations)
    report = ChunkReport(0, text.count("\n") + 1, executed.status, None, executed.outcomes)
    edits = _Edits("\n", "prox_v1")
    if checked.verdict == "reverted":
        undone = tuple(Outcome(outcome.op, "refused", "too many errors") for outcome in executed.outcomes)
        edits.reports.append(report._replace(reason="too many errors", operations=undone))
        return edits.result(text, text, None)
    edits.reports.append(report)
    edits.removed += executed.removed
    edits.replaced = executed.replaced
    reason = None if checked.verdict == "accepted" else checked.verdict
    return edits.result(text, "\n".join(executed.lines), reason)
