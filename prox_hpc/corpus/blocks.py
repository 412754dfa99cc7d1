"""Blocks that cannot be read: they fail with their reason, the rest of the step goes on, and the seal decides.

Every step that reads documents block by block writes `blocks/NNNNN.json` last. A block whose file is unreadable gets
`blocks/NNNNN.failed.json` ({"block", "path", "row", "reason"}) in its place and nothing else. That is no product: a
later task tries the block again, and once it is published the note no longer counts.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prox_hpc.corpus.read import Block, Document, Source, UnreadableBlock
from prox_hpc.publish import replace_json
from prox_hpc.task import Task

TOLD = 3
"""Failed blocks that an error message names."""


def failure_path(artifact: Path, index: int) -> Path:
    """Where it is written why block `index` of an artifact failed."""
    return artifact / "blocks" / f"{index:05d}.failed.json"


def publish_failure(task: Task, block: Block, error: UnreadableBlock) -> None:
    """Write down in the task's artifact why a block failed."""
    note = {"block": block.index, "path": error.path, "row": error.row, "reason": error.reason}
    replace_json(failure_path(task.out, block.index), note)


def withdraw_failure(artifact: Path, index: int) -> None:
    """The note no longer counts: the block is published, or tried once more."""
    failure_path(artifact, index).unlink(missing_ok=True)


@contextmanager
def fails_alone(task: Task, block: Block) -> Iterator[None]:
    """Around reading and publishing a block: if it is unreadable this is written down, and the task goes on."""
    try:
        yield
    except UnreadableBlock as error:
        publish_failure(task, block, error)
    else:
        withdraw_failure(task.out, block.index)


def failed_blocks(artifact: Path, indices: Iterable[int]) -> dict[int, str]:
    """`path: reason` of those of the blocks that failed and were not published since."""
    wanted = set(indices)
    failed = {}
    for path in sorted((artifact / "blocks").glob("*.failed.json")):
        index = int(path.name.split(".")[0])
        if index in wanted and not path.with_name(f"{index:05d}.json").exists():
            note = json.loads(path.read_text())
            failed[index] = f"{note['path']}: {note['reason']}"
    return failed


def check_failed(artifact: Path, failed: dict[int, str], allowed: int) -> None:
    """RuntimeError when more blocks failed than may."""
    if len(failed) > allowed:
        told = "; ".join(list(failed.values())[:TOLD]) + ("; ..." if len(failed) > TOLD else "")
        raise RuntimeError(
            f"{artifact}: {len(failed)} block(s) could not be read, {allowed} may: {told}. Restore or replace the "
            f"files and launch again, or go on without them: corpus.allow_failed_blocks={len(failed)}"
        )


def sound_blocks(artifact: Path, source: Source) -> tuple[list[Block], dict[int, str]]:
    """For a seal: the blocks that must have been published, and why the others failed.

    Half-published files of failed blocks are removed, since readers take every file for a block. RuntimeError when
    more failed than the corpus allows, or all of them.
    """
    failed = failed_blocks(artifact, (block.index for block in source.blocks))
    check_failed(artifact, failed, min(source.allowed, max(0, len(source.blocks) - 1)))
    for index in failed:
        for path in (artifact / "blocks").glob(f"{index:05d}.*"):
            if path != failure_path(artifact, index):
                path.unlink()
    return [block for block in source.blocks if block.index not in failed], failed


def check_read_before(artifact: Path, block: Block) -> None:
    """UnreadableBlock when the block failed in an earlier step whose products are needed (`artifact`).

    It could perhaps be read now (a disk that was away for a moment), but there is nothing to go with it.
    """
    if failed := failed_blocks(artifact, [block.index]):
        raise UnreadableBlock(block.path, f"failed in {artifact}: {failed[block.index]}")


def documents(source: Source) -> Iterator[Document]:
    """The documents of all blocks, for steps that make one product of them.

    Files that cannot be read to their end give what comes before, as often as the corpus allows unreadable blocks;
    UnreadableBlock when it is once more, or all of them.
    """
    failed = 0
    for block in source.blocks:
        try:
            yield from source.read(block)
        except UnreadableBlock:
            failed += 1
            if failed > source.allowed or failed == len(source.blocks):
                raise
