"""Gold programs: from labels to the program a refiner should have written.

Labels come as keep flags per line or as one program for a whole document; a refiner learns and is scored on chunks.
What is written here is canonical text (see `render`), so that training data, grammar and parser agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prox_hpc.programs.chunk import Chunk
from prox_hpc.programs.execute import ChunkText, removal_refusal
from prox_hpc.programs.language import DEFAULT_CAPS, Caps, KeepChunk, Normalize, Operation, RemoveLines, render
from prox_hpc.programs.parse import Program, parse


def program_from_keep(keep: Sequence[bool], first_line: int = 0) -> str:
    """The chunk program that removes the lines whose flag is False, one call for each run of them.

    keep: one flag per line, the first for line `first_line`. Nothing to remove gives `keep_chunk()`.
    """
    return _text(RemoveLines(start, end) for start, end in _runs_of_false(keep, first_line))


def _runs_of_false(keep: Sequence[bool], first_line: int) -> Iterator[tuple[int, int]]:
    start: int | None = None
    for number, kept in enumerate(keep, first_line):
        if kept and start is not None:
            yield start, number - 1
            start = None
        elif not kept and start is None:
            start = number
    if start is not None:
        yield start, first_line + len(keep) - 1


def clip(program: Program, chunk: Chunk, caps: Caps = DEFAULT_CAPS) -> str:
    """The part of a whole document's chunk-stage program that concerns one chunk, as program text.

    Removals are cut down to the chunk's lines; a normalisation is taken over where its source occurs in the chunk (as
    the normalisations before it left it) and it would not be refused. Order is kept; nothing left gives `keep_chunk()`.
    The program's removals are taken to lie within the document; negative or reversed ones are left out.
    """
    return _text(_clipped(program, chunk, caps))


def _clipped(program: Program, chunk: Chunk, caps: Caps) -> Iterator[Operation]:
    text = ChunkText("\n", None, chunk.lines, len(chunk.lines))
    last_line = chunk.first_line + len(chunk.lines) - 1
    for operation in program.operations:
        if isinstance(operation, RemoveLines) and 0 <= operation.line_start <= operation.line_end:
            start, end = max(operation.line_start, chunk.first_line), min(operation.line_end, last_line)
            if start <= end:
                yield RemoveLines(start, end)
        elif isinstance(operation, Normalize) and text.normalize(operation, caps).outcome == "applied":
            yield operation


def removed_lines(program: Program, line_count: int, first_line: int = 0) -> set[int]:
    """The numbers of the lines that `program` removes from lines `first_line` to `first_line + line_count - 1`.

    As execution would: a removal with any line outside is refused whole. The set chunk F1 is computed on.
    """
    last_line = first_line + line_count - 1
    removed: set[int] = set()
    for operation in program.operations:
        if isinstance(operation, RemoveLines) and removal_refusal(operation, first_line, last_line) is None:
            removed.update(range(operation.line_start, operation.line_end + 1))
    return removed


def removed_by_chunks(chunks: Sequence[Mapping[str, Any]]) -> set[int]:
    """Document line numbers that the chunk programs of a record remove, each by itself, as execution would."""
    removed: set[int] = set()
    for chunk in chunks:
        if chunk["program"] is not None and not chunk["oversized"]:
            program = parse(chunk["program"], "chunk", truncated=chunk["truncated"])
            removed |= removed_lines(program, chunk["line_count"], chunk["first_line"])
    return removed


def _text(operations: Iterator[Operation]) -> str:
    return render(operations) or render([KeepChunk()])
