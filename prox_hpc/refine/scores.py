"""Scores that wait on the disk for the chunk stage, where doc model and chunk model take turns on the device.

They lie in the step's state folder: the programs file holds them in the end.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from prox_hpc.corpus.read import ROW_GROUP, one_line
from prox_hpc.publish import publish_file
from prox_hpc.refine.blocks import Ready
from prox_hpc.refine.records import Written


def write_scores(path: Path, ready: Iterable[Ready]) -> None:
    """Publish what the doc stage wrote for the documents of a block, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.float64(), pa.bool_(), pa.int64(), pa.string())
    schema = pa.schema(list(zip(("id", "doc_score", "doc_cut", "doc_tokens", "quarantined"), kinds, strict=True)))

    def write(draft: Path) -> None:
        rows = (_row(one) for one in ready)
        with pq.ParquetWriter(draft, schema) as writer:
            while group := list(islice(rows, ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist(group, schema))

    publish_file(path, write)


def read_scores(path: Path) -> Iterator[tuple[str, Written]]:
    """Ids of the documents, in order, with what the doc stage wrote; RuntimeError when the file cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROW_GROUP):
                for row in batch.to_pylist():
                    yield row.pop("id"), Written(**row)
    except (OSError, pa.ArrowException) as error:
        raise RuntimeError(f"{path}: cannot be read ({one_line(error)}); remove it and launch again") from error


def _row(ready: Ready) -> dict[str, Any]:
    written = ready.written
    return {
        "id": ready.document.id,
        "doc_score": written.doc_score,
        "doc_cut": written.doc_cut,
        "doc_tokens": written.doc_tokens,
        "quarantined": written.quarantined,
    }
