"""What there is to see of one document: its lines with their marks, its programs with what came of them.

Terminal and page show the same view, so that what is removed, replaced or folded away is decided in one place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from prox_hpc.corpus.read import Document
from prox_hpc.programs import ChunkReport, DocumentResult, RemoveLines, operation_name
from prox_hpc.programs.document import DROPPED_BY_DOC_PROGRAM
from prox_hpc.programs.edits import replacements
from prox_hpc.programs.language import render_operation
from prox_hpc.refine.records import is_blank, outcome

CONTEXT: Final = 3
"""Unchanged lines shown before and after a changed one."""
OPENING: Final = 8
"""Lines shown of a document in which nothing changed."""
SHORTEST_FOLD: Final = 4
"""A shorter stretch is shown: the fold would take almost as much room."""

NO_URL: Final = "(no url)"

Part = str | tuple[str, str]
"""Text that stayed, or (old, new)."""


@dataclass(frozen=True, slots=True)
class OperationView:
    """One call, written canonically (so on one line), and what came of it.

    affected: the lines it names, or the occurrences it replaced; 0 unless applied.
    """

    call: str
    name: str
    outcome: str
    reason: str | None
    affected: int


@dataclass(frozen=True, slots=True)
class ChunkView:
    """What the refiner wrote for some lines.

    at: the line it stands before (within the document, whatever the record says). program: the text as written, None
    if there is none. executed: False if the document was dropped before, or without a chunk stage.
    """

    at: int
    first_line: int
    line_count: int
    status: str
    reason: str | None
    program: str | None
    operations: tuple[OperationView, ...]
    executed: bool

    @property
    def quiet(self) -> bool:
        """Nothing was wanted here but to keep the chunk, so it may be folded away with its lines."""
        wanted = any(operation.outcome != "no_change" or operation.reason for operation in self.operations)
        return not wanted and self.status in ("ok", "oversized", "no_program")

    @property
    def as_written(self) -> str | None:
        """The program's text, if it says anything that its operations do not."""
        canonical = "\n".join(operation.call for operation in self.operations)
        return None if self.program is None or self.program.strip() == canonical else self.program


@dataclass(frozen=True, slots=True)
class LineView:
    """An original line. parts: in order; a removed line is one part, as it was. removed_by: the call, if
    removed."""

    parts: tuple[Part, ...]
    removed_by: str | None = None

    @property
    def changed(self) -> bool:
        return self.removed_by is not None or any(not isinstance(part, str) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Fold:
    """Unchanged lines `first` to `last` (included) that are shown on request only, with the quiet chunks in them."""

    first: int
    last: int
    chunks: int = 0

    @property
    def lines(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class DocumentView:
    """A document after its programs.

    outcome: untouched, edited or dropped; reason: why dropped, or `blank`. score: log p(keep) - log p(drop).
    words: before and after its chunk programs; the same if the doc stage dropped it before they were executed.
    """

    id: str
    url: str | None
    domain: str
    outcome: str
    reason: str | None
    score: float | None
    words: tuple[int, int]
    removed_lines: int
    replaced: int
    chunks: tuple[ChunkView, ...]
    lines: tuple[LineView, ...]
    folds: tuple[Fold, ...]

    def rows(self) -> Iterator[ChunkView | Fold | tuple[int, LineView]]:
        """Everything from top to bottom: programs before their lines, numbered lines, folds in place of theirs."""
        chunks = iter([*self.chunks, None])
        folds = {fold.first: fold for fold in self.folds}
        chunk = next(chunks)
        hidden_to = -1
        for number in range(len(self.lines) + 1):
            while chunk is not None and chunk.at == number:
                if not (chunk.quiet and (number <= hidden_to or number in folds)):
                    yield chunk
                chunk = next(chunks)
            if number in folds:
                yield folds[number]
                hidden_to = folds[number].last
            if hidden_to < number < len(self.lines):
                yield number, self.lines[number]


def view(document: Document, row: Mapping[str, Any], result: DocumentResult) -> DocumentView:
    """What there is to see. row: the document's, of the programs file. result: of the row, replayed."""
    texts = document.text.split("\n")
    chunks = _chunks(row, result, len(texts))
    lines = _lines(texts, result)
    url = document.metadata.get("url")
    words_in = result.words_in
    return DocumentView(
        id=document.id,
        url=str(url) if url else None,
        domain=domain(document),
        outcome=outcome(result),
        reason="blank" if is_blank(document.text) else result.reason,
        score=row["doc_score"],
        words=(words_in, words_in if result.reason == DROPPED_BY_DOC_PROGRAM else result.words_out),
        removed_lines=result.removed_lines,
        replaced=result.replaced,
        chunks=chunks,
        lines=lines,
        folds=_folds(lines, chunks),
    )


def domain(document: Document) -> str:
    """The host of the document's url, `NO_URL` where there is none."""
    url = str(document.metadata.get("url") or "")
    try:
        return urlsplit(url if ":" in url or url.startswith("//") else f"//{url}").hostname or NO_URL
    except ValueError:  # an IPv6 address that is none
        return NO_URL


def reports(row: Mapping[str, Any], result: DocumentResult) -> tuple[ChunkReport, ...]:
    """What became of each chunk; of programs that were not executed, what the parser said when they were recorded."""
    return result.chunks or tuple(
        ChunkReport(chunk["first_line"], chunk["line_count"], chunk["status"], chunk["reason"])
        for chunk in row["chunks"]
    )


def _chunks(row: Mapping[str, Any], result: DocumentResult, line_count: int) -> tuple[ChunkView, ...]:
    """In the order they stand in the document."""
    chunks = reports(row, result)
    programs: list[str | None] = [chunk["program"] for chunk in row["chunks"]]
    if len(chunks) != len(programs):  # profile prox_v1 makes one program of them all
        programs = ["\n".join(program for program in programs if program is not None)]
    views = [
        ChunkView(
            at=min(max(chunk.first_line, 0), line_count),
            first_line=chunk.first_line,
            line_count=chunk.line_count,
            status=chunk.status,
            reason=chunk.reason,
            program=program,
            operations=tuple(
                OperationView(
                    render_operation(done.op), operation_name(done.op), done.outcome, done.reason, done.affected
                )
                for done in chunk.operations
            ),
            executed=bool(result.chunks),
        )
        for chunk, program in zip(chunks, programs, strict=True)
    ]
    return tuple(sorted(views, key=lambda chunk: chunk.at))


def _lines(texts: Sequence[str], result: DocumentResult) -> tuple[LineView, ...]:
    lines = [LineView((text,)) for text in texts]
    for chunk in result.chunks:
        if not chunk.operations:
            continue
        first = chunk.first_line
        here = texts[first : first + chunk.line_count]
        parts: dict[int, list[Part]] = {}
        ends: dict[int, int] = {}
        for one in replacements(here, chunk.operations, first):
            text, found = texts[one.line], parts.setdefault(one.line, [])
            found += [text[ends.get(one.line, 0) : one.start], (text[one.start : one.end], one.target)]
            ends[one.line] = one.end
        for number, found in parts.items():
            lines[number] = LineView(tuple(part for part in [*found, texts[number][ends[number] :]] if part))
        for number, call in _removed(chunk, len(texts)).items():
            lines[number] = LineView((texts[number],), call)
    return tuple(lines)


def _removed(chunk: ChunkReport, line_count: int) -> dict[int, str]:
    """Removed lines -> the first call that removed them."""
    removed: dict[int, str] = {}
    for done in chunk.operations:
        if done.outcome == "applied" and isinstance(done.op, RemoveLines):
            call = render_operation(done.op)
            for number in range(max(done.op.line_start, 0), min(done.op.line_end + 1, line_count)):
                removed.setdefault(number, call)
    return removed


def _folds(lines: Sequence[LineView], chunks: Sequence[ChunkView]) -> tuple[Fold, ...]:
    """Stretches without a changed line near, nor a program that wanted something."""
    shown = [False] * len(lines)
    changed = [number for number, line in enumerate(lines) if line.changed]
    for number in changed:
        low, high = max(number - CONTEXT, 0), min(number + CONTEXT + 1, len(lines))
        shown[low:high] = [True] * (high - low)
    opening = min(CONTEXT if changed else OPENING, len(lines))
    shown[:opening] = [True] * opening
    stops = {chunk.at for chunk in chunks if not chunk.quiet}
    starts = [chunk.at for chunk in chunks if chunk.quiet]
    folds = []
    first = 0
    for number in range(len(lines) + 1):
        if number == len(lines) or shown[number] or number in stops:
            if number - first >= SHORTEST_FOLD:
                folds.append((first, number - 1))
            first = number + 1 if number < len(lines) and shown[number] else number
    return tuple(Fold(low, high, sum(low <= at <= high for at in starts)) for low, high in folds)
