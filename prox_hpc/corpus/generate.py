"""The `generate` step: a generated web as a corpus artifact.

Configuration: documents, blocks, seed, sites ("train" or "test"), and world_seed (default 0: the world stays the same
whatever the seed of the pages). A block depends only on these and its index, so any number of tasks makes the same
corpus.
"""

from collections.abc import Iterator
from typing import Any

from prox_hpc.corpus.read import Document
from prox_hpc.corpus.web import Page, make_page
from prox_hpc.corpus.write import block_path, is_done, publish_counts, read_counts, write_block
from prox_hpc.errors import UserError
from prox_hpc.task import Task


def run(task: Task) -> None:
    blocks = _blocks(task.config)
    mine = range(task.index, blocks, task.step.tasks)
    for done, index in enumerate(mine):
        task.progress(done, len(mine), "blocks")
        if not is_done(task.out, index):
            make_block(task, index)
    task.progress(len(mine), len(mine), "blocks")


def make_block(task: Task, index: int) -> None:
    """Write block `index` and its counts: documents, characters, junk, and characters of the clean texts."""
    config = task.config
    counts = {"junk": 0, "gold_characters": 0, "gold_lines": 0, "lines": 0}

    def documents() -> Iterator[Document]:
        for row in range(_size(config, index)):
            page = make_page(config["sites"], config["seed"], index, row, world_seed=config.get("world_seed", 0))
            counts["junk"] += page.drop
            counts["lines"] += len(page.lines)
            counts["gold_lines"] += sum(line.clean is not None for line in page.lines)
            counts["gold_characters"] += len(page.clean)
            yield as_document(page, f"{config['sites']}-{config['seed']}-{index:05d}-{row:06d}")

    written = write_block(block_path(task.out, index), documents(), gold=True)
    publish_counts(task.out, index, counts | written)


def as_document(page: Page, identity: str) -> Document:
    """A generated page as a document with its gold."""
    metadata = {
        "url": f"https://{page.domain}{page.path}",
        "language": "en",
        "site": page.site,
        "template": page.template,
    }
    return Document(identity, page.text, metadata, page.drop, page.program)


def seal(task: Task) -> dict[str, Any]:
    """Totals; RuntimeError when a block is missing or the documents do not add up."""
    counts = read_counts(task.out, range(_blocks(task.config)))
    totals = {key: sum(block[key] for block in counts) for key in counts[0]}
    if totals["documents"] != task.config["documents"]:
        raise RuntimeError(f"{task.out}: {totals['documents']} documents, {task.config['documents']} wanted")
    return {"blocks": len(counts), **totals}


def _blocks(config: dict[str, Any]) -> int:
    if not 1 <= config["blocks"] <= config["documents"]:
        raise UserError(
            f"corpus.blocks={config['blocks']}: must be between 1 and corpus.documents={config['documents']}"
        )
    return int(config["blocks"])


def _size(config: dict[str, Any], index: int) -> int:
    """Documents of a block: all blocks alike, the first ones one longer when it does not divide."""
    each, rest = divmod(config["documents"], config["blocks"])
    return int(each + (index < rest))
