"""How fast programs are parsed and executed with full provenance, on one core, beside a plain `ast` implementation.

    python tools/bench_programs.py --pages pages.jsonl.zst

`--pages` holds one JSON object a line with `lines` and perhaps `keep` (1 for a line of main text); without it the
project's generated pages are used. The pages' lines make documents of about 4 kB, each with a program of 0 to 8 calls:
removals, mostly of runs of lines that are not to be kept, and normalisations of strings that occur in it, or do not.

Measured in turns within one run, so that a slow minute of the machine slows all of them: `refine` is
`prox_hpc.programs.refine_document` (parse, execute, outcomes with reasons, spans, checks), `refine_words` reads the
result's word counts as well (they are counted when asked for), `record` executes in UTF-8, as the steps do, and makes
the provenance record with its hashes, `ast` is `ast_programs.refine_document`. All results are compared before anything
is timed. Prints JSON.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import platform
import random
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import ast_programs
from fuzz_programs import compare_documents

from prox_hpc.programs import ChunkProgram, DocumentResult, refine_document
from prox_hpc.programs.language import quote
from prox_hpc.programs.record import document_record

CHARACTERS = 4_000
MOST_OPERATIONS = 8


@dataclass(frozen=True)
class Work:
    """A document and the one chunk program for all of it."""

    identity: str
    text: str
    utf8: bytes
    chunks: list[ChunkProgram]


Line = tuple[str, bool]
"""A line of a page and whether it is main text."""


def real_lines(path: Path) -> Iterator[Line]:
    """The lines of a file of pages, one page after the other."""
    import zstandard

    with zstandard.open(path, "rb") if path.suffix == ".zst" else path.open("rb") as file:
        for row in io.BufferedReader(file):
            page = json.loads(row)
            yield from zip(page["lines"], map(bool, page.get("keep") or [1] * len(page["lines"])), strict=True)


def generated_lines() -> Iterator[Line]:
    """The lines of the project's generated web, without end."""
    from prox_hpc.corpus.web import make_page

    for row in count():
        yield from ((line.raw, line.clean is not None) for line in make_page("train", 0, 0, row).lines)


def documents(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Lines in succession, each document ended by the line that fills it."""
    document: list[Line] = []
    size = 0
    for line in lines:
        document.append(line)
        size += len(line[0]) + 1
        if size > CHARACTERS:
            yield document
            document, size = [], 0


def write_program(document: Sequence[Line], rng: random.Random) -> str:
    """0 to 8 calls, written as this project's refiners write them or (every other document) as the released ones do."""
    released = rng.random() < 0.5
    makers = [_removal if rng.random() < 0.6 else _replacement for _ in range(rng.randint(0, MOST_OPERATIONS))]
    calls = [make(document, rng, released) for make in makers]
    return "\n".join(calls) or ("untouch_doc()" if released else "keep_chunk()")


def _removal(document: Sequence[Line], rng: random.Random, released: bool) -> str:
    """Mostly a run of lines that are not main text, at most 8 of them; one in twenty reaches beyond the document."""
    start = rng.randrange(len(document))
    while start < len(document) - 1 and document[start][1]:
        start += 1
    end = start
    while end < min(len(document) - 1, start + 7) and not document[end + 1][1]:
        end += 1
    if rng.random() < 0.05:
        end += len(document)
    return f"remove_lines(start={start}, end={end})" if released else f"remove_lines({start}, {end})"


def _replacement(document: Sequence[Line], rng: random.Random, released: bool) -> str:
    """A piece of a line, 3 to 30 characters; one in eight does not occur."""
    line = rng.choice(document)[0]
    start = rng.randrange(max(1, len(line) - 3))
    source = line[start : start + rng.randint(3, 30)] if line.strip() else "Read more"
    if rng.random() < 0.125:
        source += " \u2020"
    target = rng.choice(["", "", "", " ", "...", "see above"])
    if released:
        return f"normalize(source_str={quote(source)}, target_str={quote(target)})"
    return f"normalize({quote(source)}{', ' + quote(target) if target else ''})"


def make_work(lines: Iterator[Line], most: int, seed: int) -> list[Work]:
    rng = random.Random(seed)
    return [
        Work(
            f"document-{number}",
            text := "\n".join(text for text, _ in document),
            text.encode(),
            [ChunkProgram(0, len(document), write_program(document, rng))],
        )
        for number, document in enumerate(islice(documents(lines), most))
    ]


def refine(work: Work) -> DocumentResult[str]:
    return refine_document(work.text, work.chunks)


def refine_words(work: Work) -> tuple[int, int]:
    result = refine_document(work.text, work.chunks)
    return result.words_in, result.words_out


def record(work: Work) -> dict[str, Any]:
    result = refine_document(work.utf8, work.chunks)
    return document_record(work.identity, result, work.chunks, characters_in=len(work.text))


def refine_with_ast(work: Work) -> ast_programs.Refined:
    return ast_programs.refine_document(work.text, work.chunks)


MEASURED: dict[str, Callable[[Work], object]] = {
    "refine": refine,
    "refine_words": refine_words,
    "record": record,
    "ast": refine_with_ast,
}


def measure(work: list[Work], rounds: int) -> dict[str, list[float]]:
    """Documents a second of each, by round; within a round one after the other."""
    rates: dict[str, list[float]] = {name: [] for name in MEASURED}
    for number in range(rounds + 1):  # the first one warms up
        for name, call in MEASURED.items():
            gc.collect()
            start = time.process_time()
            for item in work:
                call(item)
            spent = time.process_time() - start
            if number:
                rates[name].append(len(work) / spent)
    return rates


def peak_memory(work: list[Work]) -> dict[str, float]:
    """Most memory held while documents are refined one at a time, and for one document of 10 MB, by its size."""
    many = _peak(lambda: [None for item in work if record(item) is None])
    text = "\n".join(item.text for item in work)
    text = (text * (10_000_000 // len(text) + 1))[:10_000_000]
    big = Work("big", text, text.encode(), [ChunkProgram(0, text.count("\n") + 1, work[0].chunks[0].program_text)])
    return {
        "all_documents_kb": round(many / 1_000, 1),
        "largest_document_kb": round(max(sys.getsizeof(item.text) for item in work) / 1_000, 1),
        "ten_mb_document_times_its_size": round(_peak(lambda: record(big)) / sys.getsizeof(text), 2),
    }


def _peak(call: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def describe(work: list[Work]) -> dict[str, Any]:
    """What was measured on."""
    results = [refine(item) for item in work]
    sizes = sorted(len(item.text.encode()) for item in work)
    operations = [len(result.operations) for result in results]
    return {
        "documents": len(work),
        "bytes": {"mean": round(statistics.mean(sizes)), "median": sizes[len(sizes) // 2], "largest": sizes[-1]},
        "lines": round(statistics.mean(item.chunks[0].line_count for item in work), 1),
        "operations": {"mean": round(statistics.mean(operations), 2), "most": max(operations)},
        "program_bytes": round(statistics.mean(len(item.chunks[0].program_text or "") for item in work)),
        "outcomes": dict(Counter(result.outcome for result in results)),
        "operation_outcomes": dict(
            Counter(f"{done.outcome}: {done.reason}" for result in results for done in result.operations).most_common()
        ),
    }


def machine() -> dict[str, Any]:
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    return {"cpu": model, "cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}


def spread(values: list[float], digits: int) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pages", type=Path, help="JSON lines, perhaps .zst (default: the generated web)")
    parser.add_argument("--documents", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    lines = real_lines(options.pages) if options.pages else generated_lines()
    work = make_work(lines, options.documents, options.seed)
    for item in work:
        compare_documents(refine(item), refine_with_ast(item))
    rates = measure(work, options.rounds)
    ratios = {
        name: spread([own / plain for own, plain in zip(rates[name], rates["ast"], strict=True)], 2)
        for name in ("refine", "refine_words", "record")
    }
    result = {
        "pages": options.pages.name if options.pages else "generated",
        "work": describe(work),
        "documents_per_second": {name: spread(values, 0) for name, values in rates.items()},
        "times_ast": ratios,
        "memory": peak_memory(work),
        "rounds": options.rounds,
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
