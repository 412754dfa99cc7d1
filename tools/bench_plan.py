"""How long planning takes for a corpus of many files: `python tools/bench_plan.py [--files N]`; prints JSON.

For each format a temporary folder of N files (records differ in text, as many small files as a crawl has) is planned:
listed, looked into, cut into blocks. Nothing is asserted.
"""

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from prox_hpc.config import Corpus
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import Source

RECORDS = 50
ROW_GROUPS = 20


def content(suffix: str, number: int) -> bytes:
    """A file of `RECORDS` pages of 2 kB; for Parquet in `ROW_GROUPS` row groups."""
    records = [
        {"id": f"{number}-{i}", "text": f"Page {i} of file {number}. " * 80, "url": f"https://e.example/{number}/{i}"}
        for i in range(RECORDS)
    ]
    if suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(records), sink, row_group_size=-(-RECORDS // ROW_GROUPS))
        return bytes(sink.getvalue())
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    compress = {".jsonl": lambda data: data, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}
    return bytes(compress[suffix](lines))


def measure(folder: Path, suffix: str, files: int) -> dict[str, Any]:
    variants = [content(suffix, number) for number in range(10)]
    for number in range(files):
        path = folder / f"{number % 100:02d}" / f"part-{number:05d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(variants[number % len(variants)])
    begun = time.perf_counter()
    description = plan_files(Corpus(name="many", kind="files", path=str(folder)))
    planned = time.perf_counter()
    blocks = len(Source.of_files(description).blocks)
    return {
        "files": files,
        "bytes": sum(file["size"] for file in description["files"]),
        "blocks": blocks,
        "plan_s": round(planned - begun, 2),
        "open_s": round(time.perf_counter() - planned, 2),
        "description_bytes": len(json.dumps(description)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How long planning takes for a corpus of many files.")
    parser.add_argument("--files", type=int, default=10_000)
    given = parser.parse_args()
    figures = {}
    for suffix in (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst"):
        with tempfile.TemporaryDirectory() as folder:
            figures[suffix] = measure(Path(folder), suffix, given.files)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
