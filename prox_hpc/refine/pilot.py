"""Step `pilot`: the doc stage on a sample of the corpus, so that a share to keep becomes a threshold before the array.

How high a refiner scores is its own matter, so "keep the best 30 %" can only be said of scores that are there. The
sample is drawn in two stages. Points evenly spaced over the whole corpus (all blocks laid end to end by their size)
choose blocks and how many documents each gives, about `PER_BLOCK` a point; within a block the documents are drawn by
lot. So little is read: of a block of Parquet a range of rows at a random place, `READ_PER_DOCUMENT` times as many as
are drawn; of any other block as many records from its beginning, since JSONL has no index. Where such files are sorted
inside (by length, site or date), that is a bias: what stands late in a file is never drawn. Sizes are rows where the
format tells them, else bytes, so that files of longer documents give more of them than is their due.

The scores are published first (`scores.parquet`), the figures made from the published scores (`pilot.json`).
"""

import asyncio
import json
import math
import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

from prox_hpc.corpus.read import Block, Document, Source, UnreadableBlock, open_source
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_file, publish_json
from prox_hpc.refine.records import is_blank
from prox_hpc.task import Task

if TYPE_CHECKING:
    import numpy as np

    from prox_hpc.refine.doc import DocPrompt, DocStage
    from prox_hpc.refine.settings import Settings

FILE: Final = "pilot.json"
SCORES: Final = "scores.parquet"
PER_BLOCK = 20
"""Documents drawn at each of the points: 100 points at 2,000 documents."""
READ_PER_DOCUMENT = 10
"""Documents read for each that is drawn."""
QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
CONFIDENCE = 0.95
_NOTE: Final = b"prox_hpc.pilot"


def threshold_of(config: Mapping[str, Any], pilot: Path | None) -> float:
    """The doc threshold of a refine or execute step: the number in its configuration, else what its pilot found.

    config: of the step. pilot: the published artifact that is its input `pilot`, None if it has none. UserError when
    it needs one and has none.
    """
    settings = config.get("arm") or config["refiner"]
    threshold = settings.get("doc_threshold", 0.0)
    if threshold is not None:
        return float(threshold)
    if pilot is None:
        raise UserError(
            f"doc_retention={settings.get('doc_retention')}: the step has no pilot as its input, so it has no threshold"
        )
    return float(json.loads((pilot / FILE).read_text())["threshold"])


def threshold_at(scores: "np.ndarray", retention: float) -> float:
    """The score that the best share `retention` of `scores` reach, to the nearest document (more where they tie)."""
    import numpy as np

    best = max(1, round(retention * len(scores)))
    return float(np.partition(scores, len(scores) - best)[len(scores) - best])


@dataclass
class _Sample:
    """What was drawn. asked: block, id and prompt of the documents to score. blank: documents without a prompt."""

    asked: list[tuple[int, str, "DocPrompt"]] = field(default_factory=list)
    blank: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    unreadable_blocks: list[int] = field(default_factory=list)


def run(task: Task) -> None:
    """Score the sample and publish its scores and figures, unless they are there."""
    from prox_hpc.refine.settings import Settings, Stages
    from prox_hpc.serve.server import check_model, check_serve

    if not (task.out / SCORES).exists():
        started = time.monotonic()
        settings = Settings.of(task)
        check_serve(settings.serve)
        check_model(settings.models["doc"])
        stages = Stages.of(settings)
        assert stages.doc is not None
        sample = _drawn(task, stages.doc)
        note = {"parameters": stages.parameters, "blank": sample.blank, "failures": sample.failures}
        note["unreadable_blocks"] = sample.unreadable_blocks
        rows, told = asyncio.run(_scored(task, settings, stages.doc, sample))
        _publish_scores(task.out / SCORES, rows, {**note, **told, "seconds": time.monotonic() - started})
    publish_json(task.out / FILE, figures(task.out / SCORES, task.config["refiner"]["doc_retention"]))


def seal(task: Task) -> dict[str, Any]:
    """The figures of `pilot.json`."""
    found: dict[str, Any] = json.loads((task.out / FILE).read_text())
    return found


def _drawn(task: Task, stage: "DocStage") -> _Sample:
    """Draw the sample and tokenise it. UserError when it has nothing to score."""
    source = open_source(task)
    sample = _Sample(failures=source.failed)
    wanted = task.config["refiner"]["pilot_documents"]
    for block, documents in draw(source, _sizes(task, source), wanted, task.config["seed"]):
        if documents is None:
            sample.unreadable_blocks.append(block.index)
            continue
        filled = [document for document in documents if not is_blank(document.text)]
        sample.blank += len(documents) - len(filled)
        prompts = stage.prompts([document.text for document in filled])
        sample.asked += [(block.index, one.id, prompt) for one, prompt in zip(filled, prompts, strict=True)]
    if not sample.asked:
        raise UserError(
            f"refiner.doc_retention: no document of the pilot sample has text ({sample.blank} blank, "
            f"{sample.failures.total()} unreadable records), so there is nothing to score; check the corpus"
        )
    return sample


def draw(
    source: Source, sizes: Sequence[float], number: int, seed: int
) -> Iterator[tuple[Block, list[Document] | None]]:
    """Draw `number` documents, or all where there are fewer: -> blocks, each with its drawn documents in their order.

    sizes: of the source's blocks, in any unit; a block without size is left out. What a block lacks (short files, bad
    records) is made up from the blocks not yet looked into; once there are none it stays missing. None in place of
    documents: the block cannot be read; UnreadableBlock when that are more blocks than the corpus allows.
    """
    lots = random.Random(seed)
    left = [(block, size) for block, size in zip(source.blocks, sizes, strict=True) if size > 0]
    unreadable = 0
    while left and number > 0:
        places = _places([size for _, size in left], number, lots.random())
        for place, wanted in places.items():
            block = left[place][0]
            try:
                documents = _draw_in(source, block, wanted, lots)
            except UnreadableBlock:
                unreadable += 1
                if unreadable > source.allowed:
                    raise
                yield block, None
                continue
            number -= len(documents)
            yield block, documents
        left = [pair for place, pair in enumerate(left) if place not in places]


def _places(sizes: Sequence[float], number: int, phase: float) -> Counter[int]:
    """Which blocks give how many of `number` documents: points evenly spaced on the line of all blocks end to end.

    phase: where in the first interval the first point lies, 0 to 1. Every document has the same chance.
    """
    ends = list(accumulate(sizes))
    # where all blocks are looked into anyway, a point for each document costs nothing and is the most even
    points = number if len(sizes) * PER_BLOCK <= number else math.ceil(number / PER_BLOCK)
    places: Counter[int] = Counter()
    for point in range(points):
        place = bisect_right(ends, (point + phase) / points * ends[-1])
        places[min(place, len(ends) - 1)] += number * (point + 1) // points - number * point // points
    return places


def _draw_in(source: Source, block: Block, wanted: int, lots: random.Random) -> list[Document]:
    """Up to `wanted` documents drawn by lot from a part of the block (reservoir sampling: only these are held)."""
    window = READ_PER_DOCUMENT * wanted
    if block.path.endswith(".parquet") and block.stop is not None and block.stop - block.start > window:
        start = lots.randrange(block.start, block.stop - window + 1)
        block = replace(block, start=start, stop=start + window)
    held: list[tuple[int, Document]] = []
    with closing(source.read(block)) as documents:  # type: ignore[type-var]
        for place, document in enumerate(islice(documents, window)):
            if place < wanted:
                held.append((place, document))
            elif (lot := lots.randrange(place + 1)) < wanted:
                held[lot] = (place, document)
    return [document for _, document in sorted(held, key=lambda pair: pair[0])]


def _rows(path: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return 1  # so that it may be drawn, and reading it tells what is wrong


def _sizes(task: Task, source: Source) -> list[float]:
    """Sizes of the blocks, in one unit: rows where the format tells them for all, else bytes of their files."""
    if "corpus" in task.step.inputs:
        return [_rows(block.path) for block in source.blocks]
    if all(block.path.endswith(".parquet") and block.stop is not None for block in source.blocks):
        return [block.stop - block.start for block in source.blocks if block.stop is not None]
    blocks = Counter(block.path for block in source.blocks)
    sizes = {file["path"]: file["size"] for file in task.config["source"]["files"]}
    return [sizes[block.path] / blocks[block.path] for block in source.blocks]


async def _scored(
    task: Task, settings: "Settings", stage: "DocStage", sample: _Sample
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Score the sample: -> rows of `scores.parquet`, and what else is to be told of it."""
    from prox_hpc.serve.pool import Pool, Quarantined

    rows: list[dict[str, Any]] = []
    quarantined: list[dict[str, str]] = []
    model, limit = settings.models["doc"], settings.runtime["max_quarantined"]

    async def one(pool: Pool, block: int, identity: str, prompt: "DocPrompt") -> None:
        try:
            score = await pool.score(model, prompt.ids, stage.keep_id, stage.drop_id)
        except Quarantined as error:
            quarantined.append({"id": identity, "reason": error.reason})
            if len(quarantined) > limit:
                raise RuntimeError(
                    f"{len(quarantined)} documents of the pilot sample went into quarantine "
                    f"(refiner.max_quarantined={limit}), the last one {identity!r}: {error.reason}"
                ) from error
            return
        row = {"id": identity, "block": block, "score": score.value, "tokens": len(prompt.ids), "cut": prompt.cut}
        rows.append(row)
        task.progress(len(rows), len(sample.asked), "documents")

    task.progress(0, len(sample.asked), "documents")
    async with Pool([model], settings.serve, task.state / "servers") as pool:
        await asyncio.gather(*(one(pool, *asked) for asked in sample.asked))
        version = pool.version
    rows.sort(key=lambda row: (row["block"], row["id"]))
    return rows, {"quarantined": quarantined, "server_version": version}


def _publish_scores(path: Path, rows: Sequence[dict[str, Any]], note: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("id", pa.string()), ("block", pa.int64()), ("score", pa.float64())]
    fields += [("tokens", pa.int64()), ("cut", pa.bool_())]
    schema = pa.schema(fields).with_metadata({_NOTE: json.dumps(note)})
    publish_file(path, lambda draft: pq.write_table(pa.Table.from_pylist(list(rows), schema), draft))


def figures(path: Path, retention: float) -> dict[str, Any]:
    """What the pilot found, from its published scores.

    retained: share of the scored documents that reach the threshold; over the whole corpus it lies in `interval` at
    95 %, by the binomial formula. standard_error_of_blocks: the same error with blocks as what was drawn; larger where
    blocks differ. threshold_interval: the scores at whose ranks the true threshold lies between, at 95 %. Blank
    documents are kept without a score: retained_of_all counts them in.
    """
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    note = json.loads(table.schema.metadata[_NOTE])
    scores, blocks = table["score"].to_numpy(), table["block"].to_numpy()
    if not len(scores):
        raise RuntimeError(f"{path}: no document of the pilot sample was scored: {note['quarantined'][:3]}")
    threshold = threshold_at(scores, retention)
    kept = scores >= threshold
    retained, number = float(kept.mean()), len(scores)
    error = math.sqrt(retained * (1 - retained) / number)
    width = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    tails = np.clip([retention + width * error, retention - width * error], 0.5 / number, 1)
    return {
        "retention": retention,
        "threshold": threshold,
        "threshold_interval": [threshold_at(scores, share) for share in tails],
        "retained": retained,
        "retained_of_all": (int(kept.sum()) + note["blank"]) / (number + note["blank"]),
        "standard_error": error,
        "standard_error_of_blocks": _error_of_blocks(kept, blocks),
        "interval": [max(0.0, retained - width * error), min(1.0, retained + width * error)],
        "quantiles": {str(q): float(np.quantile(scores, q)) for q in QUANTILES},
        "documents": {
            "scored": number,
            "blank": note["blank"],
            "cut": int(np.sum(table["cut"].to_numpy())),
            "quarantined": len(note["quarantined"]),
            "failed": sum(note["failures"].values()),
        },
        "blocks": len(np.unique(blocks)),
        **{key: note[key] for key in ("unreadable_blocks", "failures", "quarantined")},
        # as the refine step's own, for the ledger: a score is read at the last position of the prompt
        "tokens": {"doc_prefill": int(np.sum(table["tokens"].to_numpy())), "doc_decode": 0},
        **{key: note[key] for key in ("parameters", "server_version", "seconds")},
    }


def _error_of_blocks(kept: "np.ndarray", blocks: "np.ndarray") -> float | None:
    """Standard error of the share kept, with whole blocks as what was drawn; None for a single block.

    The ratio estimator of cluster sampling: m / (m - 1) times the sum over the m blocks of
    (kept - share * documents)^2, its root divided by all documents.
    """
    import numpy as np

    _, of = np.unique(blocks, return_inverse=True)
    documents = np.bincount(of)
    if len(documents) < 2:
        return None
    off = np.bincount(of, kept) - kept.mean() * documents
    return float(math.sqrt(len(documents) / (len(documents) - 1) * np.sum(off**2)) / len(kept))
