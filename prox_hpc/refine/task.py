"""Step `refine`: every document gets its programs from a refiner served here, and the refined corpus is published.

A task takes blocks as long as there are any (`claims`), has them answered by its own servers (`engine`) and publishes
programs, refined documents and a manifest for each (`blocks`). Blocks whose programs are there need no server. With
`refiner.layout=phased` the task goes over the blocks first with the doc model and then with the chunk model, so that
each has the device to itself.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any

from prox_hpc.corpus.blocks import failure_path, publish_failure, sound_blocks, withdraw_failure
from prox_hpc.corpus.read import Block, Document, UnreadableBlock, open_source
from prox_hpc.leases import Leases, this_owner
from prox_hpc.refine.blocks import add_manifests, checked_manifest, finish_block, manifest_of, path_of, write_block
from prox_hpc.refine.claims import Claims
from prox_hpc.refine.engine import BEAT_S, Engine, Pass, Progress, Refinery
from prox_hpc.refine.records import Written
from prox_hpc.refine.scores import read_scores, write_scores
from prox_hpc.refine.settings import Settings, Stages
from prox_hpc.refine.telemetry import Peak, Telemetry
from prox_hpc.serve.pool import Pool
from prox_hpc.serve.server import check_model, check_serve
from prox_hpc.stop import Interrupted
from prox_hpc.task import Task

GRACEFUL = True
"""The worker's signal handlers set `task.stop`, which the engine looks at."""
WAIT_S = 2.0
"""Between two looks at blocks in others' hands."""


def run(task: Task) -> None:
    """Refine blocks until all are done or in others' hands; those already published are left alone.

    Interrupted when told to stop before that. The task of a step that has only one looks again, and waits for what
    helpers have in their hands, since the step is sealed when it ends: the same task started a second time has taken
    back the notes of unreadable blocks, to try them once more.
    """
    settings = Settings.of(task)
    leases = Leases(task.state / "leases", this_owner(task.index), settings.lease_s) if task.step.leased else None
    with leases or nullcontext():
        job = Job(task, settings, leases)
        job.finish_published()
        while job.left():
            for stages in (("doc",), ("chunk",)) if settings.phased else (("doc", "chunk"),):
                job.serve(stages)
            if task.step.tasks > 1 or task.index > 0:
                break
            if job.left():
                _wait(task, WAIT_S)
    job.progress.tell({})


def _wait(task: Task, seconds: float) -> None:
    """Interrupted when told to stop meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if task.stop.requested:
            raise Interrupted("others have the last blocks in their hands")
        time.sleep(0.1)


@asynccontextmanager
async def _running(pool: Pool, task: Task) -> AsyncIterator[Pool]:
    """The pool with its servers up; Interrupted when told to stop while they start."""
    start = asyncio.create_task(pool.__aenter__())
    try:
        while not (await asyncio.wait([start], timeout=BEAT_S))[0]:
            if task.stop.requested:
                raise Interrupted("no block begun: the servers were not up yet")
        await start
    except BaseException:
        start.cancel()
        await asyncio.wait([start])
        raise
    async with AsyncExitStack() as stack:
        stack.push_async_exit(pool.__aexit__)
        yield pool


class Job:
    """A refine task's blocks, and the passes over them."""

    def __init__(self, task: Task, settings: Settings, leases: Leases | None):
        self.task, self.settings, self.leases = task, settings, leases
        self.source = open_source(task)
        self.again = self.source.apart()  # with its own counters, for blocks read a second time
        self.progress = Progress(task)
        for block in self._claims(self.done).own:
            withdraw_failure(task.out, block.index)  # an earlier launch's: the file may have been mended

    def finish_published(self) -> None:
        """Make what blocks lack whose programs are published: no server is needed for it."""
        for published in self._claims(self.done).own:
            if path_of(self.task.out, published, "json").exists():
                self.progress.count(manifest_of(self.task.out, published)["in"])
        claims = self._claims(lambda block: self.done(block) or not self.programs(block).exists())
        while (block := claims.take()) is not None:
            self.finish(block)
            claims.release(block)

    def left(self) -> bool:
        """Whether there are blocks to do, here or in others' hands."""
        return not all(self.done(block) for block in self._claims(self.done).blocks)

    def serve(self, stages: tuple[str, ...]) -> None:
        """One pass over the blocks with the servers of these stages; no server is started when none is free."""
        work = self._pass(stages)
        first = work.claims.take()
        if first is None:
            return
        work.claims.put_back(first)
        if self.settings.phased:
            self.progress = Progress(self.task)  # each pass counts the documents anew
        self.progress.claims = work.claims
        settings = self.settings
        check_serve(settings.serve)
        for model in settings.models.values():
            check_model(model)
        prompts = Stages.of(settings)
        models = [model for name, model in settings.models.items() if name in stages]
        asyncio.run(self._engine(work, prompts.only(stages), models))

    async def _engine(self, work: Pass, prompts: Stages, models: list[str]) -> None:
        settings = self.settings
        servers = Pool(models, settings.serve, self.task.state / "servers" / f"{self.task.index:05d}")
        async with _running(servers, self.task) as pool:
            telemetry = Telemetry(self.task.state / "telemetry" / f"{self.task.index:05d}.jsonl")
            telemetry.peak = _peak(settings, prompts, int(pool.figures().get("devices", 1)))
            refinery = Refinery(settings, prompts, pool)
            await Engine(self.task, refinery, self.source, work, telemetry, self.progress).run()

    def _pass(self, stages: tuple[str, ...]) -> Pass:
        out, execution = self.task.out, self.settings.execution
        if stages == ("doc",):
            return Pass(
                claims=self._claims(lambda block: self.done(block) or self._scores(block).exists(), ".doc"),
                size=self._size,
                read=self._read,
                publish=lambda block, ready, note: write_scores(self._scores(block), ready),
                finish=lambda block: False,
                fail=lambda block, error: publish_failure(self.task, block, error),
            )
        unscored = stages == ("chunk",)
        return Pass(
            claims=self._claims(lambda block: self.done(block) or (unscored and not self._scores(block).exists())),
            size=self._size,
            read=self._read_scored if unscored else self._read,
            publish=lambda block, ready, note: write_block(out, block, ready, execution, note),
            finish=self.finish,
            fail=lambda block, error: publish_failure(self.task, block, error),
        )

    def _claims(self, done: Callable[[Block], bool], what: str = "") -> Claims:
        return Claims(self.source.blocks, self.task.index, self.task.step.tasks, self.leases, done, what)

    def done(self, block: Block) -> bool:
        """Published, or found unreadable."""
        return path_of(self.task.out, block, "json").exists() or failure_path(self.task.out, block.index).exists()

    def programs(self, block: Block) -> Path:
        return path_of(self.task.out, block, "programs.parquet")

    def finish(self, block: Block) -> bool:
        """Make the rest of a block whose programs are published; False when they are not."""
        if not self.programs(block).exists():
            return False
        try:
            manifest = finish_block(self.task.out, block, self.again, self.settings.execution)
        except UnreadableBlock as error:
            publish_failure(self.task, block, error)
        else:
            self.progress.count(manifest["in"])
        return True

    def _read(self, block: Block) -> Iterator[tuple[Document, Written | None]]:
        return ((document, None) for document in self.source.read(block))

    def _read_scored(self, block: Block) -> Iterator[tuple[Document, Written | None]]:
        for document, scored in zip_longest(self.source.read(block), read_scores(self._scores(block))):
            if document is None or scored is None or document.id != scored[0]:
                raise RuntimeError(f"{self._scores(block)}: is not of the documents of {block.path}; remove it")
            yield document, scored[1]

    def _scores(self, block: Block) -> Path:
        return self.task.state / "scores" / f"{block.index:05d}.parquet"

    def _size(self, block: Block) -> float:
        if block.stop is not None and block.path.endswith(".parquet"):
            return block.stop - block.start
        if "corpus" not in self.task.step.inputs:
            return math.inf
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return int(pq.read_metadata(block.path).num_rows)
        except (OSError, pa.ArrowException):  # reading it will say what is wrong
            return math.inf


def _peak(settings: Settings, prompts: Stages, devices: int) -> Peak | None:
    """What the devices could do, where the configuration and the models tell; of two models the larger counts."""
    sizes = [settings.refiner.parameters] + [count["non_embedding"] for count in prompts.parameters.values()]
    known = [size for size in sizes if size]
    tflops = settings.runtime.get("peak_tflops")
    return Peak(tflops, devices, max(known)) if tflops and known else None


def seal(task: Task) -> dict[str, Any]:
    """Check that every block is there and its counts add up; returns the sums over all blocks.

    RuntimeError when a block is missing, more could not be read than allowed, or documents were lost or doubled.
    """
    source = open_source(task)
    blocks, failed = sound_blocks(task.out, source)
    missing = [block.index for block in blocks if not path_of(task.out, block, "json").exists()]
    if missing:
        raise RuntimeError(
            f"{task.out}: {len(missing)} of {len(source.blocks)} blocks are missing, first {missing[:5]}"
        )
    for draft in task.out.rglob(".*.tmp"):  # of tasks that were killed
        draft.unlink(missing_ok=True)
    return {**add_manifests([checked_manifest(task.out, block) for block in blocks]), "failed_blocks": len(failed)}
