"""What is recorded of every document, and how a document is made from its record: the one path for the refine step,
for arms and for replay.

The programs are the dataset: with a document and its row of the programs file, `execute` makes the refined document
again, under these or other settings, without a model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, AnyStr, NamedTuple

from prox_hpc.corpus.read import ROW_GROUP, Document
from prox_hpc.errors import UserError
from prox_hpc.programs import (
    DEFAULT_CAPS,
    Caps,
    ChunkProgram,
    DocumentChecks,
    DocumentResult,
    refine_document,
)
from prox_hpc.programs.execute import decoded
from prox_hpc.programs.record import document_record, text_hash
from prox_hpc.programs.record import schema as record_schema

if TYPE_CHECKING:
    import pyarrow as pa

QUARANTINED = "quarantined"
"""Reason of a document that the servers could not answer."""
OUTCOMES = ("untouched", "edited", "dropped")
_PLAIN = ("id", "characters_in", "text_hash_in", "outcome", "text_hash_out")
"""Columns that a `Row` takes over, in its order."""
_PROGRAM = ("first_line", "line_count", "program", "truncated", "oversized")
"""Fields of a chunk that make a `ChunkProgram`, in its order."""


@dataclass(frozen=True)
class Execution:
    """Which programs are executed, and how.

    threshold: documents that score below it are dropped. quarantine: what becomes of a document that the servers could
    not answer, `unrefined` or `dropped`.
    """

    doc: bool = True
    chunk: bool = True
    profile: str = "v1"
    threshold: float = 0.0
    checks: DocumentChecks = field(default_factory=DocumentChecks)
    caps: Caps = DEFAULT_CAPS
    quarantine: str = "unrefined"

    @staticmethod
    def of(config: Mapping[str, Any], pilot: Path | None = None) -> "Execution":
        """How the refine step with this configuration makes its own refined documents.

        pilot: the artifact that is its input `pilot`, if it has one.
        """
        from prox_hpc.refine.pilot import threshold_of

        refiner = config["refiner"]
        return Execution(
            doc=config["doc_stage"],
            chunk=config["chunk_stage"],
            profile=refiner.get("profile", "v1"),
            threshold=threshold_of(config, pilot),
            checks=DocumentChecks(**refiner.get("checks", {})),
            caps=Caps(**refiner.get("caps", {})),
            quarantine=refiner.get("quarantine", "unrefined"),
        )


@dataclass(slots=True)
class Written:
    """What the refiner wrote for one document, and the tokens it took.

    doc_score: log p(keep) - log p(drop), None if not scored. chunks: empty if the document was not programmed.
    doc_tokens: of the doc prompt. chunk_tokens: of all chunk prompts; cached_tokens: of these, those the server had
    read before (chance, so they are counted, not recorded). program_tokens: generated. quarantined: why the servers
    could not answer (nothing is written then), None as a rule.
    """

    doc_score: float | None = None
    doc_cut: bool = False
    chunks: list[ChunkProgram] = field(default_factory=list)
    doc_tokens: int = 0
    chunk_tokens: int = 0
    cached_tokens: int = 0
    program_tokens: int = 0
    quarantined: str | None = None


class Row(NamedTuple):
    """What execution needs of a document's row of the programs file, and what its refine step made of it.

    written: the programs (without token counts). outcome, text_hash_out: of the refine step's own execution.
    """

    id: str
    characters_in: int
    text_hash_in: str
    outcome: str
    text_hash_out: str | None
    written: Written

    @staticmethod
    def of(record: Mapping[str, Any]) -> "Row":
        """Of a row as a dict."""
        chunks = [ChunkProgram(*(chunk[name] for name in _PROGRAM)) for chunk in record["chunks"]]
        written = Written(record["doc_score"], chunks=chunks, quarantined=record["quarantined"])
        return Row(**{name: record[name] for name in _PLAIN}, written=written)


def programs_path(artifact: Path, index: int) -> Path:
    """Where the programs of block `index` of a refine artifact lie."""
    return artifact / "blocks" / f"{index:05d}.programs.parquet"


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a programs file, in order, streamed; only the columns that execution needs are read."""
    import pyarrow.parquet as pq

    chunk_columns = [f"chunks.list.element.{name}" for name in _PROGRAM]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(
            batch_size=ROW_GROUP, columns=[*_PLAIN, "doc_score", "quarantined", *chunk_columns]
        ):
            # by column: less work for each document than rows as dicts
            column = batch.column("chunks")
            ends = column.offsets.to_pylist()
            flat = column.values.slice(ends[0], ends[-1] - ends[0])  # `flatten` would import pyarrow.compute
            programs = list(map(ChunkProgram, *(flat.field(name).to_pylist() for name in _PROGRAM)))
            scores = batch.column("doc_score").to_pylist()
            written = [
                Written(score, False, programs[start - ends[0] : end - ends[0]])
                for score, start, end in zip(scores, ends[:-1], ends[1:], strict=True)
            ]
            if batch.column("quarantined").null_count < batch.num_rows:
                for one, reason in zip(written, batch.column("quarantined").to_pylist(), strict=True):
                    one.quarantined = reason
            yield from map(Row, *(batch.column(name).to_pylist() for name in _PLAIN), written)


def is_blank(text: str | bytes) -> bool:
    """Empty or white space only: no refiner is asked about it, and it is kept as it is."""
    if isinstance(text, str):
        return not text or text.isspace()
    # Bytes know no white space but ASCII's; what is left after that begins with a word in nearly all documents.
    rest = text.lstrip()
    return not rest or (not 32 < rest[0] < 127 and decoded(rest).isspace())


def check_row(row: Row, identity: str, text: str | bytes) -> str:
    """The hash of a document's text (or its UTF-8); RuntimeError when the row is another document's."""
    found = text_hash(text)
    if row.id != identity or row.text_hash_in != found:
        raise RuntimeError(f"document {identity!r}: the programs file holds {row.id!r} or another text there")
    return found


def replay(document: Document, record: Mapping[str, Any], execution: Execution) -> DocumentResult[str]:
    """A document after the programs in its row of the programs file, given as a dict.

    UserError when the execution needs what was not programmed. RuntimeError when the row is another document's.
    """
    row = Row.of(record)
    check_row(row, document.id, document.text)
    return execute(document.id, document.text, row.written, execution)


def execute(identity: str, text: AnyStr, written: Written, execution: Execution) -> DocumentResult[AnyStr]:
    """Execute what was written for a document, given as text or UTF-8.

    UserError when something that is needed was not written.
    """
    if is_blank(text):
        return refine_document(text, [])
    if written.quarantined is not None:
        return refine_document(text, [], drop=execution.quarantine == "dropped")._replace(reason=QUARANTINED)
    drop = False
    if execution.doc:
        if written.doc_score is None:
            raise UserError(f"document {identity!r} has no doc score; the refine step ran without its doc stage")
        drop = written.doc_score < execution.threshold
    if execution.chunk and not drop and not written.chunks:
        raise UserError(
            f"document {identity!r} (score {written.doc_score}) has no chunk programs; lower refiner.doc_threshold "
            "or raise refiner.chunk_margin for the refine step, or use only higher thresholds"
        )
    chunks = written.chunks if execution.chunk else []
    return refine_document(
        text, chunks, drop=drop, profile=execution.profile, checks=execution.checks, caps=execution.caps
    )


def outcome(result: DocumentResult[Any]) -> str:
    """`untouched`, `edited` or `dropped` (the first two are kept)."""
    return "untouched" if result.outcome == "kept" else result.outcome


def row(document: Document, written: Written, execution: Execution) -> dict[str, Any]:
    """A document's row of the programs file, executed once to tell what becomes of it."""
    return row_of(document, execute(document.id, document.text.encode(), written, execution), written, execution)


def row_of(document: Document, result: DocumentResult[bytes], written: Written, execution: Execution) -> dict[str, Any]:
    """As `row`, of a document whose UTF-8 was executed with this result."""
    verdict = None
    if written.doc_score is not None:
        verdict = "keep_doc()" if written.doc_score >= execution.threshold else "drop_doc()"
    record = document_record(document.id, result, written.chunks, execution.caps, len(document.text))
    if is_blank(document.text):
        record["reason"] = "blank"
    return record | {
        "doc_score": written.doc_score,
        "doc_program": verdict,
        "doc_cut": written.doc_cut,
        "doc_tokens": written.doc_tokens,
        "chunk_tokens": written.chunk_tokens,
        "input_tokens": written.doc_tokens + written.chunk_tokens,
        "output_tokens": written.program_tokens,
        "quarantined": written.quarantined,
    }


def schema() -> "pa.Schema":
    """Columns of the programs file, one row a document in the block's order: its record, doc stage and token counts."""
    import pyarrow as pa

    more = [("doc_score", pa.float64()), ("doc_program", pa.string()), ("doc_cut", pa.bool_())]
    more += [(name, pa.int64()) for name in ("doc_tokens", "chunk_tokens", "input_tokens", "output_tokens")]
    more += [("quarantined", pa.string())]
    return pa.schema([*record_schema(), *more])
