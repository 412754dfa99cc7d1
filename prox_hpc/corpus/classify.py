"""The `classify` step: a classifier's score of every document, and the score from which on an arm keeps them.

The whole corpus is scored, and not a sample: arms are compared at equal retention, so this one keeps as many documents
as the arm `like` does and not a point more or less, as a threshold from 2,000 documents would; and a linear model costs
little more than reading them.

Inputs: `classifier`, `like`, and `corpus` unless `source` describes files. Product: per block `blocks/NNNNN.parquet`
(id, score), in the corpus's order.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from prox_hpc.corpus.blocks import fails_alone, sound_blocks
from prox_hpc.corpus.classifier import Classifier
from prox_hpc.corpus.read import Block, Source, open_source, task_blocks
from prox_hpc.corpus.write import block_path, is_done, publish_counts, read_counts
from prox_hpc.publish import publish_file
from prox_hpc.task import Task

BATCH: Final = 256
"""Documents scored at a time."""


def run(task: Task) -> None:
    """Publish the scores of this task's blocks."""
    source, classifier = open_source(task), Classifier.load(task.input("classifier"))
    mine = task_blocks(source.blocks, task)
    for done, block in enumerate(mine):
        task.progress(done, len(mine), "blocks")
        if not is_done(task.out, block.index):
            with fails_alone(task, block):
                _score_block(task.out, source, block, classifier)
    task.progress(len(mine), len(mine), "blocks")


def seal(task: Task) -> dict[str, Any]:
    """documents, failed_blocks, wanted (documents that the arm `like` kept), kept (what it comes to), threshold.

    The threshold is the score of the last of the `wanted` best; more are kept where documents tie with it.
    RuntimeError when a block is missing or too many could not be read.
    """
    sound, failed = sound_blocks(task.out, open_source(task))
    counts = read_counts(task.out, [block.index for block in sound])
    like = json.loads((task.input("like") / "artifact.json").read_text())["summary"]
    scores = np.concatenate([_scores(task.out, block) for block in sound])
    best = max(1, min(like["documents_out"], len(scores)))
    threshold = float(np.partition(scores, -best)[-best]) if len(scores) else 0.0
    return {
        "documents": sum(block["documents"] for block in counts),
        "failed_blocks": len(failed),
        "wanted": like["documents_out"],
        "kept": int((scores >= threshold).sum()),
        "threshold": threshold,
    }


def read_scores(artifact: Path, block: Block) -> Iterator[tuple[str, float]]:
    """Id and score of each document of a block, in order."""
    import pyarrow.parquet as pq

    table = pq.read_table(block_path(artifact, block.index))
    return zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True)


def _score_block(artifact: Path, source: Source, block: Block, classifier: Classifier) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.string()), ("score", pa.float64())])
    scored, failed_before = 0, source.failed.total()

    def write(draft: Path) -> None:
        nonlocal scored
        documents = source.read(block)
        with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
            while batch := list(islice(documents, BATCH)):
                ids = pa.array([document.id for document in batch], pa.string())
                scores = pa.array(classifier.scores([document.text for document in batch]))
                writer.write_table(pa.Table.from_arrays([ids, scores], schema=schema))
                scored += len(batch)

    publish_file(block_path(artifact, block.index), write)
    failed = source.failed.total() - failed_before
    publish_counts(artifact, block.index, {"documents": scored, "failed": failed})


def _scores(artifact: Path, block: Block) -> np.ndarray:
    import pyarrow.parquet as pq

    column: np.ndarray = pq.read_table(block_path(artifact, block.index), columns=["score"])["score"].to_numpy()
    return column
