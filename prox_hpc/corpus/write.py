"""Writing a block of documents, and checking a whole corpus of blocks.

A corpus artifact is `blocks/NNNNN.parquet` (the documents) and beside each `blocks/NNNNN.json` (its counts, written
last): a block counts as done when its JSON is there. The counts are what proves that no document was lost or doubled,
so a seal reads them all, compares them with the Parquet files and adds them up.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prox_hpc.corpus.read import ROW_GROUP, ROW_GROUP_BYTES, Document, Stored
from prox_hpc.publish import publish_file, publish_json

if TYPE_CHECKING:
    import pyarrow as pa

_Row = tuple[Stored, bool | None, str | None]
"""A document with its gold: whether it is junk, its true program."""


def block_path(artifact: Path, index: int) -> Path:
    """Where the documents of block `index` of a corpus artifact lie."""
    return artifact / "blocks" / f"{index:05d}.parquet"


def write_block(path: Path, documents: Iterable[Document], *, gold: bool = False) -> dict[str, int]:
    """Publish documents as one zstd Parquet file; returns {"documents", "characters"}.

    gold: also write the columns `drop` and `program` (the truth, where it is known). Arms leave it out, so that no
    later step can read the truth by accident. The file's bytes depend on the documents only.
    """
    return _publish(path, ((Stored.of(one), one.gold_drop, one.gold_program) for one in documents), gold)


def write_stored(path: Path, documents: Iterable[Stored]) -> dict[str, int]:
    """As `write_block`, of documents as they are stored, without gold."""
    return _publish(path, ((document, None, None) for document in documents), gold=False)


def _publish(path: Path, rows: Iterable[_Row], gold: bool) -> dict[str, int]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("id", pa.string()), ("text", pa.large_string()), ("metadata", pa.large_string())]
    schema = pa.schema(fields + ([("drop", pa.bool_()), ("program", pa.large_string())] if gold else []))
    counts = {"documents": 0, "characters": 0}

    def write(draft: Path) -> None:
        with pq.ParquetWriter(draft, schema, compression="zstd", use_dictionary=False) as writer:
            for group in _row_groups(rows):
                columns = _columns(group, gold)
                counts["documents"] += len(group)
                # every byte but 0x80 to 0xBF begins a character
                counts["characters"] += int(np.count_nonzero(np.frombuffer(columns[1].buffers()[2], np.int8) >= -64))
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))

    publish_file(path, write)
    return counts


def _row_groups(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Long documents make a row group end early, so that memory stays bounded."""
    group: list[_Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row[0].utf8)
        if len(group) == ROW_GROUP or size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _columns(group: list[_Row], gold: bool) -> list["pa.Array"]:
    import pyarrow as pa

    columns = [
        _strings([document.id.encode() for document, _, _ in group], pa.string()),
        _strings([document.utf8 for document, _, _ in group], pa.large_string()),
        _strings([document.metadata.encode() for document, _, _ in group], pa.large_string()),
    ]
    if gold:
        columns.append(pa.array([drop for _, drop, _ in group], pa.bool_()))
        columns.append(pa.array([program for _, _, program in group], pa.large_string()))
    return columns


def _strings(utf8: Sequence[bytes], kind: "pa.DataType") -> "pa.Array":
    """An array of strings, made of its buffers: `pa.array` imports pandas, a quarter second of every process."""
    import numpy as np
    import pyarrow as pa

    offsets = np.cumsum([0, *map(len, utf8)], dtype=np.int32 if kind == pa.string() else np.int64)
    array = pa.Array.from_buffers(kind, len(utf8), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(utf8))])
    array.validate(full=True)  # that it is UTF-8, and not too much for 32 bits
    return array


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
