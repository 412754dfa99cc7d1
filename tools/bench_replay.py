"""How fast recorded programs are executed again: `python -m prox_hpc.replay` from Parquet to Parquet, end to end.

    python tools/bench_replay.py --pages pages.jsonl.zst --megabytes 200

The documents and programs are those of `bench_programs.py`, repeated until the text has that many megabytes of UTF-8,
in blocks of 10,000 documents, published as a refine step leaves them. Each round runs the command with one worker and
with two; `end_to_end` is text over the command's wall time, Python's start-up twice included, `per_core` text over the
processor time of the command and its workers. All rounds must give the same corpus. Prints JSON.

Two corpora: one whose documents are all kept and edited by four calls each, the most work there is, and one of which
the doc stage keeps 40 % (the paper keeps 23 to 29 % of the tokens), as a replay usually finds it.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from bench_programs import Work, generated_lines, machine, make_work, real_lines, spread

from prox_hpc.corpus.read import Document
from prox_hpc.corpus.write import block_path, publish_counts, write_block
from prox_hpc.publish import publish_file, publish_json, replace_json
from prox_hpc.refine.records import Execution, Written, programs_path, row, schema
from prox_hpc.task import Step

BLOCK_DOCUMENTS = 10_000


def repeated(work: Sequence[Work], megabytes: float, kept: float) -> Iterator[list[tuple[Document, Written]]]:
    """Blocks of documents with their programs until their text has that many bytes; the share `kept` scores above 0."""
    rng = random.Random(0)
    left = megabytes * 1e6
    items = enumerate(cycle(work))
    while left > 0:
        block = []
        for number, item in islice(items, BLOCK_DOCUMENTS):
            metadata = {"url": f"https://{number % 997}.example/{number}", "dump": "2026-11"}
            keep = rng.random() < kept
            written = Written(1.0, chunks=item.chunks) if keep else Written(-1.0)
            block.append((Document(f"{number}-{item.identity}", item.text, metadata), written))
            left -= len(item.text.encode())
            if left <= 0:
                break
        yield block


def make_run(folder: Path, blocks: Iterator[list[tuple[Document, Written]]]) -> tuple[Path, float]:
    """A run folder with one finished refine step over these documents; and the bytes of their text."""
    store = folder / "store"
    corpus = Step("generate", "pages", {})
    step = Step("refine", "pages", {"refiner": {}, "doc_stage": True, "chunk_stage": True}, {"corpus": corpus.address})
    source, programs = store / "artifacts" / corpus.address, store / "artifacts" / step.address
    size = 0.0
    for index, block in enumerate(blocks):
        publish_counts(source, index, write_block(block_path(source, index), [document for document, _ in block]))
        rows = [row(document, written, Execution()) for document, written in block]
        table = pa.Table.from_pylist(rows, schema())
        publish_file(
            programs_path(programs, index),
            lambda draft, table=table: pq.write_table(table, draft, compression="zstd"),  # type: ignore[misc]
        )
        size += sum(len(document.text.encode()) for document, _ in block)
    publish_json(source / "artifact.json", {"summary": {}})
    publish_json(programs / "artifact.json", {"summary": {}, "address": step.address})
    replace_json(store / "steps" / step.address / "step.json", step.to_json())
    run = folder / "runs" / "pages"
    steps = {one.address: one.to_json() for one in (corpus, step)}
    replace_json(run / "study.json", {"config": {"store": str(store)}, "steps": steps})
    return run, size


def replay(run: Path, workers: int, name: str) -> tuple[float, float, dict[str, Any]]:
    """-> wall seconds, processor seconds, what the command printed."""
    command = [sys.executable, "-m", "prox_hpc.replay", str(run), "--workers", str(workers), "--name", name, "--json"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, json.loads(done.stdout)


def measure(work: Sequence[Work], megabytes: float, kept: float, rounds: int) -> dict[str, Any]:
    """Replay a corpus of which the doc stage keeps this share."""
    rates: dict[str, list[float]] = {}
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        run, size = make_run(Path(folder), repeated(work, megabytes, kept))
        for number in range(rounds):
            for workers in (1, 2):
                wall, cpu, told = replay(run, workers, f"r{number}-{workers}")
                rates.setdefault(f"end_to_end_{workers}_workers", []).append(size / 1e6 / wall)
                rates.setdefault(f"per_core_{workers}_workers", []).append(size / 1e6 / cpu)
                digests.add(told["replay"]["digest_out"])
    return {
        "megabytes": round(size / 1e6, 1),
        "documents": told["replay"]["documents_in"],
        "outcomes": told["replay"]["outcomes"],
        "operations": told["replay"]["operations"],
        "megabytes_per_second": {name: spread(values, 1) for name, values in rates.items()},
        "same_corpus_every_time": len(digests) == 1,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pages", type=Path, help="JSON lines, perhaps .zst (default: the generated web)")
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--documents", type=int, default=2_000, help="different documents, repeated")
    parser.add_argument(
        "--kept", type=float, nargs="+", default=[1.0, 0.4], help="share of documents that the doc stage keeps"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    work = make_work(real_lines(options.pages) if options.pages else generated_lines(), options.documents, 0)
    result = {
        "pages": options.pages.name if options.pages else "generated",
        "kept": {str(kept): measure(work, options.megabytes, kept, options.rounds) for kept in options.kept},
        "rounds": options.rounds,
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
