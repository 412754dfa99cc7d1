"""Many coroutines' calls of one function on lists, done together in a thread.

Tokenising one document a call wastes the tokenizer's threads and costs a thread switch each; while one batch is at
work the next one gathers, so batches are as large as the load makes them and an idle caller waits for nobody.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Batcher(Generic[A, B]):
    """`await batcher(item)` is `function([item])[0]`; at most `limit` items are given to `function` at once.

    An exception of the function is raised to all callers of that batch.
    """

    def __init__(self, function: Callable[[Sequence[A]], Sequence[B]], limit: int):
        self._function = function
        self._limit = limit
        self._waiting: list[tuple[A, asyncio.Future[B]]] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Items that wait for the batch at work to end."""
        return len(self._waiting)

    async def __call__(self, item: A) -> B:
        future: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                try:
                    results = await asyncio.to_thread(self._function, [item for item, _ in batch])
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # also a panic in a tokenizer's Rust, which is no Exception
                    told = error if isinstance(error, Exception) else RuntimeError(repr(error))
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(told)
                    continue
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():  # its caller was cancelled
                        future.set_result(result)
        finally:
            self._worker = None
