"""What is recorded of every document, and how a document is made from its record: the one path for the refine step,
for arms and for replay.

The programs are the dataset: with a document and its row of the programs file, `replay` makes the refined document
again, under these or other settings, without a model.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prox_hpc.corpus.read import Document
from prox_hpc.errors import UserError
from prox_hpc.programs import ChunkProgram, ChunkReport, DocumentChecks, DocumentResult, parse, refine_document

if TYPE_CHECKING:
    import pyarrow as pa

OUTCOMES = ("untouched", "edited", "dropped")


@dataclass(frozen=True)
class Execution:
    """Which programs are executed, and how. threshold: documents that score below it are dropped."""

    doc: bool = True
    chunk: bool = True
    profile: str = "v1"
    threshold: float = 0.0
    checks: DocumentChecks = field(default_factory=DocumentChecks)


@dataclass
class Written:
    """What the refiner wrote for one document, and the tokens it took.

    doc_score: log p(keep) - log p(drop), None if not scored. chunks: empty if the document was not programmed.
    doc_tokens: of the doc prompt. chunk_tokens: of all chunk prompts. program_tokens: generated.
    """

    doc_score: float | None = None
    doc_cut: bool = False
    chunks: list[ChunkProgram] = field(default_factory=list)
    doc_tokens: int = 0
    chunk_tokens: int = 0
    program_tokens: int = 0


class Digest:
    """Digest of a collection of documents that does not depend on their order, and counts a doubled one twice.

    The sum modulo 2**128 of a 128-bit BLAKE2b of each document's id and text.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, identity: str, text: str) -> None:
        data = f"{len(identity)}:{identity}{text}".encode("utf-8", "surrogatepass")
        self._sum += int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "big")

    def __str__(self) -> str:
        return f"{self._sum % 2**128:032x}"


def text_hash(text: str) -> str:
    """128-bit BLAKE2b of the text, in hex."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_blank(text: str) -> bool:
    """Empty or white space only: no refiner is asked about it, and it is kept as it is."""
    return not text or text.isspace()


def replay(document: Document, row: Mapping[str, Any], execution: Execution) -> DocumentResult:
    """A document after the programs recorded in its row of the programs file.

    UserError when the execution needs what was not programmed. RuntimeError when the row is another document's.
    """
    if row["id"] != document.id or row["text_hash_in"] != text_hash(document.text):
        raise RuntimeError(f"document {document.id!r}: the programs file holds {row['id']!r} or another text there")
    written = Written(row["doc_score"], chunks=[_chunk_program(chunk) for chunk in row["chunks"]])
    return execute(document, written, execution)


def execute(document: Document, written: Written, execution: Execution) -> DocumentResult:
    """Execute what was written for a document; UserError when something that is needed was not."""
    if is_blank(document.text):
        return refine_document(document.text, [])
    drop = False
    if execution.doc:
        if written.doc_score is None:
            raise UserError(f"document {document.id!r} has no doc score; the refine step ran without its doc stage")
        drop = written.doc_score < execution.threshold
    if execution.chunk and not drop and not written.chunks:
        raise UserError(
            f"document {document.id!r} (score {written.doc_score}) has no chunk programs; lower refiner.doc_threshold "
            "or raise refiner.chunk_margin for the refine step, or use only higher thresholds"
        )
    chunks = written.chunks if execution.chunk else []
    return refine_document(document.text, chunks, drop=drop, profile=execution.profile, checks=execution.checks)


def outcome(result: DocumentResult) -> str:
    """`untouched`, `edited` or `dropped` (the first two are kept)."""
    return "untouched" if result.outcome == "kept" else result.outcome


def row(document: Document, written: Written, execution: Execution) -> dict[str, Any]:
    """A document's row of the programs file, executed once to tell what becomes of it."""
    result = execute(document, written, execution)
    verdict = None
    if written.doc_score is not None:
        verdict = "keep_doc()" if written.doc_score >= execution.threshold else "drop_doc()"
    reports = {report.first_line: report for report in result.chunks}
    return {
        "id": document.id,
        "doc_score": written.doc_score,
        "doc_program": verdict,
        "doc_cut": written.doc_cut,
        "chunks": [_chunk_row(chunk, reports.get(chunk.first_line)) for chunk in written.chunks],
        "outcome": outcome(result),
        "reason": "blank" if is_blank(document.text) else result.reason,
        "removed_lines": result.removed_lines,
        "replaced": result.replaced,
        "words_in": result.words_in,
        "words_out": 0 if result.text is None else result.words_out,
        "characters_in": len(document.text),
        "characters_out": len(result.text or ""),
        "doc_tokens": written.doc_tokens,
        "chunk_tokens": written.chunk_tokens,
        "input_tokens": written.doc_tokens + written.chunk_tokens,
        "output_tokens": written.program_tokens,
        "text_hash_in": text_hash(document.text),
        "text_hash_out": None if result.text is None else text_hash(result.text),
    }


def schema() -> "pa.Schema":
    """Columns of the programs file: one row a document, in the block's order.

    chunks: empty if the document was not programmed. status: final status of the program (`oversized` and `no_program`
    where there is none). text_hash_out: null if dropped.
    """
    import pyarrow as pa

    chunk = pa.struct(
        [
            ("first_line", pa.int64()),
            ("line_count", pa.int64()),
            ("program", pa.large_string()),
            ("truncated", pa.bool_()),
            ("oversized", pa.bool_()),
            ("status", pa.string()),
            ("reason", pa.string()),
        ]
    )
    counts = ["removed_lines", "replaced", "words_in", "words_out", "characters_in", "characters_out"]
    counts += ["doc_tokens", "chunk_tokens", "input_tokens", "output_tokens"]
    return pa.schema(
        [
            ("id", pa.string()),
            ("doc_score", pa.float64()),
            ("doc_program", pa.string()),
            ("doc_cut", pa.bool_()),
            ("chunks", pa.list_(chunk)),
            ("outcome", pa.string()),
            ("reason", pa.string()),
            *((name, pa.int64()) for name in counts),
            ("text_hash_in", pa.string()),
            ("text_hash_out", pa.string()),
        ]
    )


def _chunk_row(chunk: ChunkProgram, report: ChunkReport | None) -> dict[str, Any]:
    """report: None if it was not executed, because the document is dropped; the status is then the parser's."""
    if report is not None:
        status, reason = str(report.status), report.reason
    elif chunk.oversized or chunk.program_text is None:
        status, reason = "oversized" if chunk.oversized else "no_program", None
    else:
        program = parse(chunk.program_text, "chunk", truncated=chunk.truncated)
        status, reason = program.status, program.reason
    return {
        "first_line": chunk.first_line,
        "line_count": chunk.line_count,
        "program": chunk.program_text,
        "truncated": chunk.truncated,
        "oversized": chunk.oversized,
        "status": status,
        "reason": reason,
    }


def _chunk_program(chunk: Mapping[str, Any]) -> ChunkProgram:
    return ChunkProgram(
        chunk["first_line"], chunk["line_count"], chunk["program"], chunk["truncated"], chunk["oversized"]
    )
