"""Step `labels`: documents with gold become the questions and answers a refiner is trained on.

A document with a doc verdict gives one doc example; a document that is kept (or has no verdict) and has a gold program
gives one chunk example per chunk, its answer being the part of the program that concerns the chunk. Prompts are
rendered by the code that serves the refiner, with the same cuts, so that training shows exactly what serving will ask.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prox_hpc.corpus.blocks import documents
from prox_hpc.corpus.read import Document, open_source
from prox_hpc.programs import clip, parse, split_chunks
from prox_hpc.publish import publish_file
from prox_hpc.refiner import tokenizer as own_tokenizer
from prox_hpc.serve.prompt import cut_document, render_chunk, render_doc
from prox_hpc.task import Task

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

FILE: Final = "labels.parquet"
_COUNTS: Final = b"prox_hpc.counts"


class Label(NamedTuple):
    """One example: stage (`doc`, `chunk`), the document's id, the prompt, the program that answers it; of a chunk, also
    the number of its first line and how many it has (else 0)."""

    stage: str
    id: str
    prompt: str
    program: str
    first_line: int = 0
    lines: int = 0


class Settings(NamedTuple):
    """How prompts are made (see `prox_hpc.config.Refiner`)."""

    prompt: str
    max_chunk_tokens: int
    max_doc_tokens: int
    doc_answers: tuple[str, str]


def label(document: Document, tokenizer: "Tokenizer", settings: Settings, counts: Counter[str]) -> Iterator[Label]:
    """The examples of one document; `counts` is added to.

    Raises ValueError when a gold program is malformed: labels are ours, so that is a fault and no model output.
    """
    counts["documents"] += 1
    if document.gold_drop is None and document.gold_program is None:
        counts["without_gold"] += 1
        return
    if document.gold_drop is not None:
        text, cut = cut_document(
            document.text,
            settings.max_doc_tokens,
            lambda text: tokenizer.encode(text, add_special_tokens=False).offsets,
        )
        answer = "drop" if document.gold_drop else "keep"
        counts.update(["doc", answer, *(["doc_cut"] if cut else [])])
        yield Label("doc", document.id, render_doc(settings.prompt, text), settings.doc_answers[document.gold_drop])
    if document.gold_drop or document.gold_program is None:
        return
    program = parse(document.gold_program, "chunk")
    if program.status != "ok":
        raise ValueError(f"document {document.id}: gold program is {program.status} ({program.reason})")

    def count(lines: list[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(lines, add_special_tokens=False)]

    for chunk in split_chunks(document.text, count, settings.max_chunk_tokens):
        if chunk.oversized:  # never shown to a refiner
            counts["oversized"] += 1
            continue
        answer = clip(program, chunk)
        counts.update(["chunk", *(["chunk_untouched"] if answer == "keep_chunk()" else [])])
        prompt = render_chunk(settings.prompt, chunk)
        yield Label("chunk", document.id, prompt, answer, chunk.first_line, len(chunk.lines))


def run(task: Task) -> None:
    """Label the documents of the step's corpus and publish `labels.parquet`, its counts in the file's metadata."""
    if (task.out / FILE).exists():
        return
    tokenizer = own_tokenizer.load(task.input("tokenizer"))
    keys = Settings._fields
    settings = Settings(**{key: task.config[key] for key in keys})
    counts: Counter[str] = Counter()
    source = open_source(task)
    labels = (example for document in documents(source) for example in label(document, tokenizer, settings, counts))
    publish_file(task.out / FILE, lambda draft: _write(draft, labels, counts, source.failed))


def seal(task: Task) -> dict[str, Any]:
    """Counts of documents and examples, by stage and answer."""
    import pyarrow.parquet as pq

    file = pq.read_metadata(task.out / FILE)
    counts: dict[str, int] = json.loads(file.metadata[_COUNTS])
    return {**counts, "examples": file.num_rows}


def read(artifact: "Path") -> list[Label]:
    """The examples of a labels artifact."""
    import pyarrow.parquet as pq

    return [Label(**row) for row in pq.read_table(artifact / FILE).to_pylist()]


def _write(path: "Path", labels: Iterator[Label], counts: Counter[str], failed: Counter[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [pa.string(), pa.string(), pa.large_string(), pa.large_string(), pa.int64(), pa.int64()]
    schema = pa.schema(list(zip(Label._fields, types, strict=True)))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        for example in labels:
            rows.append(example._asdict())
            if len(rows) == 1000:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))
        counts.update({f"unreadable: {reason}": number for reason, number in failed.items()})
        writer.add_key_value_metadata({_COUNTS: json.dumps(counts)})
