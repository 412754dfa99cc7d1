"""Writing a block of documents, and checking a whole corpus of blocks.

A corpus artifact is `blocks/NNNNN.parquet` (the documents) and beside each `blocks/NNNNN.json` (its counts, written
last): a block counts as done when its JSON is there. The counts are what proves that no document was lost or doubled,
so a seal reads them all, compares them with the Parquet files and adds them up.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prox_hpc.corpus.read import ROW_GROUP, ROW_GROUP_CHARACTERS, Document, JsonObject
from prox_hpc.publish import publish_file, publish_json

if TYPE_CHECKING:
    import pyarrow as pa


def block_path(artifact: Path, index: int) -> Path:
    """Where the documents of block `index` of a corpus artifact lie."""
    return artifact / "blocks" / f"{index:05d}.parquet"


def write_block(path: Path, documents: Iterable[Document], *, gold: bool = False) -> dict[str, int]:
    """Publish documents as one zstd Parquet file; returns {"documents", "characters"}.

    gold: also write the columns `drop` and `program` (the truth, where it is known). Arms leave it out, so that no
    later step can read the truth by accident. The file's bytes depend on the documents only.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("id", pa.string()), ("text", pa.large_string()), ("metadata", pa.large_string())]
    schema = pa.schema(fields + ([("drop", pa.bool_()), ("program", pa.large_string())] if gold else []))
    counts = {"documents": 0, "characters": 0}

    def write(draft: Path) -> None:
        with pq.ParquetWriter(draft, schema, compression="zstd", use_dictionary=False) as writer:
            for batch in _batches(documents):
                counts["documents"] += len(batch)
                counts["characters"] += sum([len(document.text) for document in batch])
                writer.write_table(pa.Table.from_arrays(_columns(batch, schema), schema=schema))

    publish_file(path, write)
    return counts


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents of each row group; long documents make it end early, so that memory stays bounded."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == ROW_GROUP or characters >= ROW_GROUP_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _columns(batch: list[Document], schema: "pa.Schema") -> list["pa.Array"]:
    """The columns of `schema`, in its order."""
    import pyarrow as pa

    values: dict[str, list[Any]] = {
        "id": [document.id for document in batch],
        "text": [document.text for document in batch],
        "metadata": [_json(document.metadata) for document in batch],
        "drop": [document.gold_drop for document in batch],
        "program": [document.gold_program for document in batch],
    }
    return [pa.array(values[field.name], field.type) for field in schema]


def _json(metadata: Mapping[str, Any]) -> str:
    # default=str: Parquet corpora hold dates and decimals, which JSON lacks
    return metadata.text if isinstance(metadata, JsonObject) else json.dumps(metadata, default=str)


def is_done(artifact: Path, index: int) -> bool:
    """Whether block `index` is published with its counts."""
    return block_path(artifact, index).with_suffix(".json").exists()


def publish_counts(artifact: Path, index: int, counts: dict[str, Any]) -> None:
    """Publish the counts of a block, which ends it; `documents` must be the number of rows of its Parquet file."""
    publish_json(block_path(artifact, index).with_suffix(".json"), counts)


def read_counts(artifact: Path, indices: Iterable[int]) -> list[dict[str, Any]]:
    """The counts of all blocks; RuntimeError when a block is missing or differs from its Parquet file."""
    import pyarrow.parquet as pq

    wanted = sorted(indices)
    missing = [index for index in wanted if not is_done(artifact, index)]
    if missing:
        raise RuntimeError(f"{artifact}: {len(missing)} of {len(wanted)} blocks are missing, first {missing[:5]}")
    blocks = []
    for index in wanted:
        path = block_path(artifact, index)
        counts = json.loads(path.with_suffix(".json").read_text())
        rows = pq.read_metadata(path).num_rows
        if rows != counts["documents"]:
            raise RuntimeError(f"{path}: {rows} rows, but its counts say {counts['documents']} documents")
        blocks.append(counts)
    return blocks
