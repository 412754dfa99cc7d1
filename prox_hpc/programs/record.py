"""The provenance record of a document: what its programs said, what became of each call, and hashes of the text.

With the document and its record anybody can make the refined text again and see why it reads as it does. Records are
plain dicts, made here without I/O; `schema` gives the Parquet columns they are stored in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, AnyStr

from xxhash import xxh3_128_hexdigest

from prox_hpc.programs.document import ChunkProgram, ChunkReport, DocumentResult
from prox_hpc.programs.execute import Outcome, character_count
from prox_hpc.programs.language import DEFAULT_CAPS, Caps, Normalize, RemoveLines, operation_name
from prox_hpc.programs.parse import parse

if TYPE_CHECKING:
    import pyarrow as pa


def text_hash(text: str | bytes) -> str:
    """XXH3 (128 bits) of a text's UTF-8, in hex (lone surrogates as if they could be encoded).

    It tells texts apart and finds damage; it does not withstand somebody who wants two texts to collide. BLAKE2b would,
    but hashing 4 kB twice with it takes 9 us, a quarter of what executing the programs takes; XXH3 takes 0.7.
    """
    try:
        return xxh3_128_hexdigest(text)
    except UnicodeEncodeError:
        return xxh3_128_hexdigest(str(text).encode("utf-8", "surrogatepass"))


def document_record(
    identity: str,
    result: DocumentResult[AnyStr],
    chunks: Sequence[ChunkProgram],
    caps: Caps = DEFAULT_CAPS,
    characters_in: int | None = None,
) -> dict[str, Any]:
    """The record of document `identity`, whose `chunks` were executed (or not, if it was dropped) with `result`.

    characters_in: of the text before, where the caller knows it: UTF-8 must be decoded to be counted.
    """
    if characters_in is None:
        characters_in = character_count(result.before)
    dropped = result.outcome == "dropped"
    reports = _reports(result, chunks)
    hash_in = text_hash(result.before)
    unchanged = result.after is result.before
    return {
        "id": identity,
        "chunks": [_chunk_record(chunk, report, caps) for chunk, report in zip(chunks, reports, strict=True)],
        "outcome": "untouched" if result.outcome == "kept" else result.outcome,
        "reason": result.reason,
        "removed_lines": result.removed_lines,
        "replaced": result.replaced,
        "characters_in": characters_in,
        "characters_out": 0 if dropped else characters_in if unchanged else character_count(result.after),
        "text_hash_in": hash_in,
        "text_hash_out": None if dropped else hash_in if unchanged else text_hash(result.after),
    }


def _reports(result: DocumentResult[Any], chunks: Sequence[ChunkProgram]) -> Sequence[ChunkReport | None]:
    """What became of each chunk; None where nothing was executed.

    The profile prox_v1 executes a document's programs as one: the first chunk then stands for all of them.
    """
    if len(result.chunks) == len(chunks):
        return result.chunks
    if not result.chunks:
        return [None] * len(chunks)
    (whole,) = result.chunks
    return [whole, *[whole._replace(operations=())] * (len(chunks) - 1)][: len(chunks)]


def _chunk_record(chunk: ChunkProgram, report: ChunkReport | None, caps: Caps) -> dict[str, Any]:
    """report: None if the program was not executed, because the document was dropped before."""
    if report is not None:
        status: str = report.status
        reason, operations = report.reason, [_operation_record(outcome) for outcome in report.operations]
    elif chunk.oversized or chunk.program_text is None:
        status, reason, operations = "oversized" if chunk.oversized else "no_program", None, []
    else:
        program = parse(chunk.program_text, "chunk", truncated=chunk.truncated, caps=caps)
        status, reason = program.status, program.reason
        operations = [
            {**_operation_record(Outcome(operation, "no_change")), "outcome": None} for operation in program.operations
        ]
    return {
        "first_line": chunk.first_line,
        "line_count": chunk.line_count,
        "program": chunk.program_text,
        "truncated": chunk.truncated,
        "oversized": chunk.oversized,
        "status": status,
        "reason": reason,
        "operations": operations,
    }


def _operation_record(outcome: Outcome) -> dict[str, Any]:
    operation = outcome.op
    start = end = source = target = None
    if isinstance(operation, RemoveLines):
        start, end = _line(operation.line_start), _line(operation.line_end)
    elif isinstance(operation, Normalize):
        source, target = _storable(operation.source_str), _storable(operation.target_str)
    return {
        "op": operation_name(operation),
        "line_start": start,
        "line_end": end,
        "source_str": source,
        "target_str": target,
        "outcome": outcome.outcome,
        "reason": outcome.reason,
        "affected": outcome.affected,
    }


def _line(number: int) -> int:
    """A line number that fits a 64-bit column; one that does not is as far outside any document as the limit."""
    return number if -(2**63) <= number < 2**63 else 2**63 - 1 if number > 0 else -(2**63)


def _storable(text: str) -> str:
    """UTF-8, which Parquet asks for, cannot hold the lone surrogates that an escape can make; the program text can."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def schema() -> pa.Schema:
    """Parquet columns of a record: one row a document.

    chunks: in document order, empty if the document was not programmed. status: final status of the program
    (`oversized` and `no_program` where there is none). operations: as parsed, none if malformed; outcome is null where
    the program was not executed, since the document was dropped before; affected: lines or occurrences.
    text_hash_out: null if dropped.
    """
    import pyarrow as pa

    operation = pa.struct(
        [
            ("op", pa.string()),
            ("line_start", pa.int64()),
            ("line_end", pa.int64()),
            ("source_str", pa.string()),
            ("target_str", pa.string()),
            ("outcome", pa.string()),
            ("reason", pa.string()),
            ("affected", pa.int64()),
        ]
    )
    chunk = pa.struct(
        [
            ("first_line", pa.int64()),
            ("line_count", pa.int64()),
            ("program", pa.large_string()),
            ("truncated", pa.bool_()),
            ("oversized", pa.bool_()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("operations", pa.list_(operation)),
        ]
    )
    counts = ("removed_lines", "replaced", "characters_in", "characters_out")
    return pa.schema(
        [
            ("id", pa.string()),
            ("chunks", pa.list_(chunk)),
            ("outcome", pa.string()),
            ("reason", pa.string()),
            *((name, pa.int64()) for name in counts),
            ("text_hash_in", pa.string()),
            ("text_hash_out", pa.string()),
        ]
    )
