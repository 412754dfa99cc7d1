"""The refining engine: documents stream from the corpus through both stages into published blocks, all at once.

    read (thread) -> prompt (threads) -> score -> prompt -> programs (pool of servers) -> execute, write (thread)

Nothing waits for a block to end: while the last documents of one are being written, the next one is read, so the
servers always have work. What bounds memory is the room: documents between reading and writing, counted and weighed;
documents leave it in the corpus's order, so one slow document holds up at most a room full of others.
"""

import asyncio
import math
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from prox_hpc.corpus.read import Block, Document, Source, UnreadableBlock
from prox_hpc.refine.batcher import Batcher
from prox_hpc.refine.blocks import CACHED, Lost, Ready
from prox_hpc.refine.claims import Claims
from prox_hpc.refine.records import Written, is_blank
from prox_hpc.refine.settings import Settings, Stages
from prox_hpc.refine.telemetry import EVERY_S, Telemetry
from prox_hpc.serve.client import Score
from prox_hpc.serve.pool import Pool, Quarantined
from prox_hpc.stop import Interrupted
from prox_hpc.task import Task

READ_TOGETHER = 64
"""Documents read in one go, and tokenised in one go: some hundred milliseconds of work for a thread."""
READ_CHARACTERS = 16 << 20
"""Text read in one go."""
ROOM_DOCUMENTS = 4
"""Documents in the pipe for every request the servers may work on: a document waits in every part once."""
ROOM_CHARACTERS = 256 << 20
"""Text in the pipe, whatever the number of documents; a single longer document passes alone."""
BEAT_S = 0.5
"""Between two looks at the clock and the signals, and two status reports."""
OPEN_BLOCKS = 16
"""Blocks in work at once. Of large ones there is room for two or three; small ones must not leave the servers idle."""
SHOWN = ("in_flight", "restarts", "quarantined", "cached_tokens_per_second")
"""Figures in the status view that are shown only where there is something to see."""


class Room:
    """The documents between reading and writing. Only one coroutine enters."""

    def __init__(self, limit: Callable[[], float]):
        self._limit = limit
        self._left = asyncio.Event()
        self.documents = self.characters = 0

    async def enter(self, size: int) -> None:
        while self.documents and (self.documents >= self._limit() or self.characters + size > ROOM_CHARACTERS):
            self._left.clear()
            await self._left.wait()
        self.documents += 1
        self.characters += size

    def leave(self, documents: int, size: int) -> None:
        self.documents -= documents
        self.characters -= size
        self._left.set()


class Refinery:
    """The stages of one pass over the documents with the servers that answer them."""

    def __init__(self, settings: Settings, stages: Stages, pool: Pool):
        self.settings, self.stages, self.pool = settings, stages, pool
        self.models = settings.models
        self.quarantined = 0
        if stages.doc is not None:
            self.doc_prompts = Batcher(stages.doc.prompts, READ_TOGETHER)
        if stages.chunk is not None:
            self.chunk_prompts = Batcher(stages.chunk.prompts, READ_TOGETHER)

    @property
    def waiting(self) -> int:
        """Documents that wait to be tokenised."""
        stages = (self.stages.doc and self.doc_prompts, self.stages.chunk and self.chunk_prompts)
        return sum(batcher.waiting for batcher in stages if batcher)

    async def write(self, document: Document, known: Written | None, order: int) -> Written:
        """All that this pass writes for a document. known: what an earlier pass wrote. order: see `Pool`."""
        if is_blank(document.text):
            return Written()
        written = known or Written()
        if written.quarantined is not None:
            return written
        try:
            score = None
            if self.stages.doc is not None and written.doc_score is None:
                score = await self._score(document.text, written, order)
            if self.stages.chunk is not None and self.settings.wants_chunks(written.doc_score):
                await self._program(document.text, written, order, score)
        except Quarantined as error:
            self.quarantined += 1
            if self.quarantined > self.settings.max_quarantined:
                raise RuntimeError(
                    f"{self.quarantined} documents were put into quarantine (refiner.max_quarantined="
                    f"{self.settings.max_quarantined}), the last one {document.id!r}: {error.reason}; "
                    "look at the servers' logs, or allow more"
                ) from error
            return Written(quarantined=error.reason)
        return written

    async def _score(self, text: str, written: Written, order: int) -> Score:
        doc = self.stages.doc
        assert doc is not None
        prompt = await self.doc_prompts(text)
        score = await self.pool.score(self.models["doc"], prompt.ids, doc.keep_id, doc.drop_id, order)
        written.doc_score, written.doc_cut, written.doc_tokens = score.value, prompt.cut, len(prompt.ids)
        return score

    async def _program(self, text: str, written: Written, order: int, score: Score | None) -> None:
        """score: of the doc stage just now, or None. Where both stages share one reading its server is asked."""
        chunk, model = self.stages.chunk, self.models["chunk"]
        after = score if self.settings.one_reading else None
        assert chunk is not None
        asked = await self.chunk_prompts(text)
        stop = [chunk.model.eos_id]
        requests = [
            self.pool.generate(model, one.ids, chunk.max_new_tokens, chunk.grammar, stop, order, after)
            for one in asked
            if one.ids is not None
        ]
        # All are waited for, so that none is left behind when one is refused.
        answers = await asyncio.gather(*requests, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        left = iter(answers)
        for one in asked:
            if one.ids is None:
                written.chunks.append(one.program(None))
                continue
            generation = next(left)
            assert not isinstance(generation, BaseException)
            written.chunks.append(one.program(generation.text, generation.truncated))
            written.chunk_tokens += len(one.ids)
            written.program_tokens += generation.tokens
            written.cached_tokens += generation.cached


@dataclass
class Open:
    """A block in work: its documents come in any order and are fed to the thread that writes it in theirs.

    total: its documents, infinite where that is not known before it is read. before: the telemetry when it was opened.
    """

    block: Block
    total: float
    before: dict[str, Any]
    feed: "queue.SimpleQueue[list[Ready] | BaseException | None]" = field(default_factory=queue.SimpleQueue)
    failed: Counter[str] = field(default_factory=Counter)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)
    admitted: int = 0
    written: int = 0
    characters: int = 0
    cached_tokens: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    _ready: dict[int, Ready] = field(default_factory=dict)
    _next: int = 0
    _ended: bool = False

    def deliver(self, number: int, ready: Ready) -> None:
        self._ready[number] = ready
        self.cached_tokens += ready.written.cached_tokens
        if number == self._next:
            run = []
            while (following := self._ready.pop(self._next, None)) is not None:
                run.append(following)
                self._next += 1
            self.feed.put(run)
        self._end_if_over()

    def end(self, failed: Counter[str], failures: list[dict[str, Any]]) -> None:
        """The corpus has no more documents of this block. failed, failures: records that gave none."""
        self._ended, self.failed, self.failures, self.total = True, failed, failures, self.admitted
        self._end_if_over()

    def give_up(self, reason: BaseException) -> None:
        """The block is not to be published; the thread that writes it raises `reason`."""
        for task in self.tasks:
            task.cancel()
        self.feed.put(reason)

    def _end_if_over(self) -> None:
        if self._ended and self._next == self.admitted:
            self.feed.put(None)


@dataclass(frozen=True)
class Pass:
    """One way over the blocks of a step.

    claims: the blocks this pass has to do. size(block): its documents, infinite where the file does not say.
    read(block): its documents with what is known of them from an earlier pass. publish(block, ready, note): publishes
    what this pass makes of them. finish(block): makes what a block lacks whose programs are published; whether they
    were. fail(block, error): writes down that a block cannot be read.
    """

    claims: Claims
    size: Callable[[Block], float]
    read: Callable[[Block], Iterator[tuple[Document, Written | None]]]
    publish: Callable[[Block, Iterator[Ready], Callable[[], dict[str, Any]]], object]
    finish: Callable[[Block], bool]
    fail: Callable[[Block, UnreadableBlock], object]


class Progress:
    """Documents done by a task, for its status file; of blocks not yet read the mean size so far is assumed."""

    def __init__(self, task: Task):
        self.task = task
        self.claims: Claims | None = None
        self.documents = self.blocks = 0

    def count(self, documents: int) -> None:
        """A block is done."""
        self.documents += documents
        self.blocks += 1

    def tell(self, figures: dict[str, float], opened: Sequence["Open"] = ()) -> None:
        left = [block.total - block.written for block in opened if block.total < math.inf]
        sizes = [self.documents / self.blocks] if self.blocks else [block.total for block in opened]
        mean = sum(sizes) / len(sizes) if sizes and max(sizes) < math.inf else 0
        total = (
            self.documents + sum(left) + mean * ((self.claims.own_left if self.claims else 0) + len(opened) - len(left))
        )
        self.task.progress(self.documents, total, "documents", **figures)


class Engine:
    """Runs one pass with servers that are up; `await engine.run()`.

    source: of the documents, for its counters. Raises what a server or the disk raises; Interrupted when it was told to
    stop before all was done. What is published stays in any case.
    """

    def __init__(
        self,
        task: Task,
        refinery: Refinery,
        source: Source,
        work: Pass,
        telemetry: Telemetry,
        progress: Progress,
    ):
        self.task, self.refinery, self.source, self.work = task, refinery, source, work
        self.telemetry, self.progress = telemetry, progress
        self.room = Room(lambda: max(4 * READ_TOGETHER, ROOM_DOCUMENTS * refinery.pool.figures()["limit"]))
        self.open: list[Open] = []
        self.places = asyncio.Semaphore(OPEN_BLOCKS)
        self.writers = ThreadPoolExecutor(OPEN_BLOCKS, "writer")
        self.admitted = 0
        self.given_up = False

    async def run(self) -> None:
        work = asyncio.create_task(self._blocks())
        line_due = time.monotonic() + EVERY_S
        try:
            while not (await asyncio.wait([work], timeout=BEAT_S))[0] and not self._out_of_time():
                self._tell(line=time.monotonic() >= line_due)
                if time.monotonic() >= line_due:
                    line_due += EVERY_S
        finally:
            self.given_up |= not work.done()
            work.cancel()
            for opened in self.open:
                opened.give_up(Interrupted("the task ends"))
            await asyncio.wait([work])
            self.writers.shutdown()
        self._tell(line=True)
        if not work.cancelled():
            work.result()
        if self.task.stop.requested and (self.given_up or self.work.claims.pending):
            raise Interrupted(f"{self.progress.blocks} blocks done, the others are left")

    def _tell(self, line: bool) -> None:
        look = self._look()
        rates = self.telemetry.rates(look)
        if line:
            self.telemetry.write(look)
        figures = {name: value for name, value in look["pool"].items() if name in SHOWN and value}
        shown = {name: round(rate, 4) for name, rate in rates.items() if rate or name not in SHOWN}
        self.progress.tell({**shown, **figures}, self.open)

    def _look(self) -> dict[str, Any]:
        waiting = {"room": self.room.documents, "prompts": self.refinery.waiting}
        waiting |= {"write": sum(opened.feed.qsize() for opened in self.open)}
        return self.telemetry.look(self.refinery.pool.figures(), waiting)

    def _out_of_time(self) -> bool:
        stop = self.task.stop
        return stop.requested and stop.deadline is not None and time.monotonic() > stop.deadline

    def _must_give_up(self, opened: Open) -> bool:
        """Whether the task shall end before this block can be done; of a block of unknown size that is not known."""
        stop = self.task.stop
        if not stop.requested or stop.deadline is None or opened.total == math.inf:
            return False
        rate = self.telemetry.rates(self._look())["documents_per_second"]
        return opened.total - opened.written > rate * (stop.deadline - time.monotonic())

    async def _blocks(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while not self.task.stop.requested:
                    await self.places.acquire()
                    block = await asyncio.to_thread(self.work.claims.take)
                    if block is None:
                        break
                    if await asyncio.to_thread(self.work.finish, block):
                        self.work.claims.release(block)
                        self.places.release()
                        continue
                    opened = Open(block, await asyncio.to_thread(self.work.size, block), self._look())
                    self.open.append(opened)
                    group.create_task(self._write(opened))
                    await self._read(opened, group)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    async def _read(self, opened: Open, group: asyncio.TaskGroup) -> None:
        """Admit the documents of a block one by one, as there is room for them."""
        failed_before = Counter(self.source.failed)
        documents = self.work.read(opened.block)
        try:
            while True:
                with self.telemetry.waiting("read"):
                    some = await asyncio.to_thread(_few, documents)
                if not some:
                    break
                for document, known in some:
                    if self._must_give_up(opened):
                        opened.give_up(Interrupted(self.task.stop.reason))
                        return
                    size = len(document.text)
                    with self.telemetry.waiting("room"):
                        await self.room.enter(size)
                    opened.characters += size
                    task = group.create_task(self._document(opened, opened.admitted, document, known, self._order()))
                    opened.tasks.add(task)
                    task.add_done_callback(opened.tasks.discard)
                    opened.admitted += 1
                    self.admitted += 1
        except UnreadableBlock as error:
            opened.give_up(error)
            return
        opened.end(Counter(self.source.failed) - failed_before, list(self.source.failures))
        self.progress.documents += opened.failed.total()

    def _order(self) -> int:
        """Documents are asked about longest first among so many successive ones, and not before those before them."""
        return self.admitted // (4 * READ_TOGETHER)

    async def _document(self, opened: Open, number: int, document: Document, known: Written | None, order: int) -> None:
        written = await self.refinery.write(document, known, order)
        opened.deliver(number, Ready(document, written))

    async def _write(self, opened: Open) -> None:
        loop = asyncio.get_running_loop()
        block, ready = opened.block, self._stream(opened, loop)
        try:
            await loop.run_in_executor(self.writers, self.work.publish, block, ready, lambda: self._note(opened))
            self.progress.blocks += 1
        except Lost:
            self._uncount(opened)
            await loop.run_in_executor(self.writers, self.work.finish, block)
        except UnreadableBlock as error:
            self._uncount(opened)
            await loop.run_in_executor(self.writers, self.work.fail, block, error)
        except Interrupted:
            self._uncount(opened)
            self.given_up = True
        finally:
            opened.give_up(Interrupted("the task ends"))  # or its thread would wait for documents for ever
            self.work.claims.release(block)
            self.room.leave(opened.admitted - opened.written, opened.characters)
            self.open.remove(opened)
            self.places.release()

    def _uncount(self, opened: Open) -> None:
        """The documents of this block are not done, or counted otherwise."""
        self.progress.documents -= opened.written + opened.failed.total()

    def _stream(self, opened: Open, loop: asyncio.AbstractEventLoop) -> Iterator[Ready]:
        """The documents of a block in order, for the thread that writes it."""
        while True:
            asked = time.monotonic()
            run = opened.feed.get()
            waited = time.monotonic() - asked
            if run is None:
                return
            if isinstance(run, BaseException):
                raise run
            yield from run
            size = sum(len(ready.document.text) for ready in run)
            loop.call_soon_threadsafe(self._written, opened, len(run), size, waited)

    def _note(self, opened: Open) -> dict[str, Any]:
        """What a block's manifest says beside its documents."""
        return {
            "failed": dict(opened.failed),
            "failed_records": opened.failures,
            CACHED: opened.cached_tokens,
            "seconds": time.monotonic() - opened.started,
            "server_version": self.refinery.pool.version,
            "parameters": self.refinery.stages.parameters,
            "speed": self.telemetry.between(self._look(), opened.before),
        }

    def _written(self, opened: Open, documents: int, size: int, waited: float) -> None:
        opened.written += documents
        opened.characters -= size
        self.room.leave(documents, size)
        self.telemetry.documents += documents
        self.telemetry.waited["answers"] += waited
        self.progress.documents += documents


def _few(documents: Iterator[tuple[Document, Written | None]]) -> list[tuple[Document, Written | None]]:
    """The next documents, fewer if they are long: these are not in the room yet."""
    some: list[tuple[Document, Written | None]] = []
    size = 0
    for document, known in documents:
        some.append((document, known))
        size += len(document.text)
        if len(some) == READ_TOGETHER or size >= READ_CHARACTERS:
            break
    return some


def _first(errors: BaseExceptionGroup) -> BaseException:
    """The exception that ended the others."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
