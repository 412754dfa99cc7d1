"""All servers of a task: started together, asked in batches, watched, started again, and rid of poisonous requests.

A caller awaits one request at a time; here they wait in a queue, go out several to a call (8 a call gave 12,600 scores
a second from an echo server, 1 a call 3,600), to the server with the most room, and never more at a time than is good
for it. A server's health is its progress: an answer or a new line in its log within `serve.stall_timeout_s` while it
has work. (SGLang logs its batches; its health route has answered 200 for an hour after its scheduler's death, and
failed under long prefills.)
Requests have no side effects, so whatever a dead server left unanswered is asked again; what kills one server after
the other is found by halving and put into quarantine.
"""

import asyncio
import heapq
import itertools
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from prox_hpc.config import Serve
from prox_hpc.errors import UserError
from prox_hpc.serve.client import Client, Fault, Generating, Generation, Question, Refused, Score, Scoring
from prox_hpc.serve.limit import Limit
from prox_hpc.serve.seats import Seat, seats, visible_gpus
from prox_hpc.serve.server import Server, ServerError, check_model, check_serve

_SUMS = ("requests", "calls", "restarts", "quarantined", "input_tokens", "cached_tokens", "output_tokens")
TRIES = 4
"""How often a living server may fail a request before it is started again."""
PAUSE_S = 0.5
"""After a broken connection: whether the server has died shows by then."""
POLL_S = 1.0
LONGEST_BACK_OFF_S = 60.0


class Quarantined(Exception):
    """This request alone cannot be answered: it kills servers, or they refuse it; `reason` says which."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True, eq=False)
class _Request:
    """deaths: servers that died with it in flight. tries: how often a living server failed it."""

    question: Question
    ids: Sequence[int]
    future: "asyncio.Future[Any]"
    deaths: int = 0
    tries: int = 0


class _Queue:
    """Waiting requests of one model: lower orders first, within an order the longest prompt first."""

    def __init__(self) -> None:
        self._heaps: dict[Question, list[tuple[int, int, int, _Request]]] = {}
        self._pushed = 0
        self.waiting = 0

    def push(self, order: int, request: _Request) -> None:
        self._pushed += 1
        heap = self._heaps.setdefault(request.question, [])
        heapq.heappush(heap, (order, -len(request.ids), self._pushed, request))
        self.waiting += 1

    def take(self, count: int) -> list[_Request]:
        """At most `count` requests that ask the same question, the first of all among them; may be none."""
        question = min(self._heaps, key=lambda question: self._heaps[question][0])
        heap = self._heaps[question]
        taken: list[_Request] = []
        while heap and len(taken) < count:
            request = heapq.heappop(heap)[-1]
            self.waiting -= 1
            if not request.future.done():  # its caller may have given up
                taken.append(request)
        if not heap:
            del self._heaps[question]
        return taken

    def clear(self) -> Iterator[tuple[int, _Request]]:
        """Order and request of all that waited."""
        for heap in self._heaps.values():
            yield from ((entry[0], entry[-1]) for entry in heap)
        self._heaps.clear()
        self.waiting = 0


@dataclass(eq=False)
class _Replica:
    """One server, in all its lives.

    keeper: the thread that starts and stops it (a server dies with the thread that started it). suspects: groups of
    requests in flight when it died, each to be tried with nothing else in flight. on_trial: one of them is in flight.
    victims: how many requests its last death left. poison: the one that is found to be deadly. failures: deaths in a
    row without an answer in between. alarm: why it must be ended. own: requests that wait for this server, because it
    has read the beginning of their prompts.
    """

    number: int
    seat: Seat
    log: Path
    limit: Limit
    start_lock: asyncio.Lock
    keeper: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "server"))
    server: Server | None = None
    client: Client | None = None
    calls: set["asyncio.Task[None]"] = field(default_factory=set)
    in_flight: dict[_Request, None] = field(default_factory=dict)
    own: _Queue = field(default_factory=_Queue)
    suspects: deque[list[_Request]] = field(default_factory=deque)
    on_trial: bool = False
    victims: int = 0
    poison: _Request | None = None
    failures: int = 0
    alarm: str | None = None
    alarmed: asyncio.Event = field(default_factory=asyncio.Event)
    sign: float = 0.0
    idle_since: float | None = None
    idle_s: float = 0.0

    @property
    def is_ready(self) -> bool:
        return self.client is not None and self.alarm is None

    def call_alarm(self, reason: str) -> None:
        self.alarm = self.alarm or reason
        self.alarmed.set()


class Pool:
    """All servers of a task (replicas x GPUs of each model), supervised. One awaitable call per request.

    `async with Pool(models, serve, logs) as pool`; models: folders or hub names; logs: folder for the servers' logs.
    Entering starts all servers; leaving stops them, and what still waits fails. A request raises Quarantined when it
    killed a server twice or more, alone in flight the last time, or when the server refuses it; ServerError when the
    pool cannot go on (a start failed, `serve.restarts` is spent). UserError at once for what the user can mend.
    """

    def __init__(self, models: Sequence[str], serve: Serve, logs: Path):
        self.serve = serve
        self.version = ""
        models = list(dict.fromkeys(models))
        for model in models:
            check_model(model)
        check_serve(serve)
        places = seats(models, serve, visible_gpus(serve), sorted(os.sched_getaffinity(0)))
        locks: dict[str, asyncio.Lock] = {}
        self._replicas = [
            _Replica(
                number,
                seat,
                logs / f"server-{number}.log",
                Limit(serve.requests_in_flight, serve.max_in_flight),
                # SGLang takes its share of the memory that is free when it starts, so starts on a GPU take turns.
                locks.setdefault(seat.gpu or str(number), asyncio.Lock()),
            )
            for number, seat in enumerate(places)
        ]
        self._queues = {model: _Queue() for model in models}
        self._lives: list[asyncio.Task[None]] = []
        self._error: BaseException | None = None
        self._pump_is_due = False
        self._sums = dict.fromkeys(_SUMS, 0)

    async def __aenter__(self) -> "Pool":
        try:
            async with asyncio.TaskGroup() as starts:
                for replica in self._replicas:
                    starts.create_task(self._start(replica))
            first = self._replicas[0].server
            assert first is not None
            self.version = await asyncio.to_thread(first.version)
        except BaseExceptionGroup as group:
            await self._close()
            raise group.exceptions[0] from None
        except BaseException:
            await self._close()
            raise
        self._lives = [asyncio.create_task(self._live(replica)) for replica in self._replicas]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def score(self, model: str, ids: Sequence[int], keep_id: int, drop_id: int, order: int = 0) -> Score:
        """Log-probabilities of `keep_id` and `drop_id` as the token after `ids`; one forward pass, nothing decoded.

        order: requests of a lower order go first; within one order the longest prompt goes first.
        """
        answer: Score = await self._asked(model, Scoring(keep_id, drop_id), ids, order)
        return answer

    async def generate(
        self,
        model: str,
        ids: Sequence[int],
        max_new_tokens: int,
        grammar: str | None = None,
        stop_ids: Sequence[int] = (),
        order: int = 0,
        after: Score | None = None,
    ) -> Generation:
        """Greedy continuation of `ids`, within `grammar` (EBNF) if given, up to one of `stop_ids` (not in the text).

        after: the score of a prompt that begins alike; the same server is then asked, and before anything new, while
        its prefix cache still holds what it has read.
        """
        question = Generating(max_new_tokens, grammar, tuple(stop_ids))
        answer: Generation = await self._asked(model, question, ids, order, after)
        return answer

    def figures(self) -> dict[str, float]:
        """waiting, in_flight, limit: now. devices: GPUs (1 without any). requests (answered), calls, restarts,
        quarantined, input_tokens, cached_tokens (of these, those of generations that were in a prefix cache),
        output_tokens: sums since the start. idle_s: the servers' time with nothing in flight, added up."""
        now = time.monotonic()
        idle = sum(r.idle_s + (now - r.idle_since if r.idle_since is not None else 0.0) for r in self._replicas)
        return {
            "waiting": sum(queue.waiting for queue in self._all_queues())
            + sum(len(group) for replica in self._replicas for group in tuple(replica.suspects)),
            "in_flight": sum(len(replica.in_flight) for replica in self._replicas),
            "limit": sum(replica.limit.value for replica in self._replicas),
            "devices": len({replica.seat.gpu for replica in self._replicas}),
            "idle_s": idle,
            **self._sums,
        }

    # requests: queue, calls, answers

    def _asked(
        self, model: str, question: Question, ids: Sequence[int], order: int, after: Score | None = None
    ) -> "asyncio.Future[Any]":
        if self._error is not None:
            raise _again(self._error)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        queue = self._queues[model]
        if after is not None and after.replica is not None and (reader := self._replicas[after.replica]).is_ready:
            queue = reader.own if reader.seat.model == model else queue
        queue.push(order, _Request(question, ids, future))
        self._pump_soon()
        return future

    def _pump_soon(self) -> None:
        """Requests and answers come many in one turn of the event loop: look once after all of them."""
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        ready = [replica for replica in self._replicas if replica.is_ready]
        for replica in ready:
            if not replica.in_flight:
                replica.on_trial = bool(replica.suspects)
                if replica.suspects:
                    self._try_suspects(replica)
        free = [replica for replica in ready if not replica.on_trial]
        for replica in free:
            while (count := min(self._batch(replica), replica.own.waiting, _room(replica))) > 0:
                if batch := replica.own.take(count):
                    self._send(replica, batch)
        for model, queue in self._queues.items():
            replicas = [replica for replica in free if replica.seat.model == model]
            while queue.waiting and replicas:
                replica = max(replicas, key=_room)
                count = min(self._batch(replica), -(-queue.waiting // len(replicas)))
                if _room(replica) < count:
                    break
                if batch := queue.take(count):
                    self._send(replica, batch)

    def _batch(self, replica: _Replica) -> int:
        """Requests of a call: never so many that the server runs dry while room for the next call is awaited."""
        return max(1, min(self.serve.batch_requests, replica.limit.value // 4))

    def _try_suspects(self, replica: _Replica) -> None:
        """Send the next group of suspects, in calls of the usual size."""
        group = [request for request in replica.suspects.popleft() if not request.future.done()]
        if not group:
            self._pump_soon()
        by_question: dict[Question, list[_Request]] = {}
        for request in group:
            by_question.setdefault(request.question, []).append(request)
        size = self._batch(replica)
        for requests in by_question.values():
            for start in range(0, len(requests), size):
                self._send(replica, requests[start : start + size])

    def _send(self, replica: _Replica, batch: list[_Request]) -> None:
        if not replica.in_flight:
            replica.sign = time.monotonic()
            if replica.idle_since is not None:
                replica.idle_s += replica.sign - replica.idle_since
                replica.idle_since = None
        replica.in_flight.update(dict.fromkeys(batch))
        self._sums["calls"] += 1
        task = asyncio.create_task(self._call(replica, batch))
        replica.calls.add(task)
        task.add_done_callback(replica.calls.discard)

    async def _call(self, replica: _Replica, batch: list[_Request]) -> None:
        """One call and its answers; what stays unanswered stays in flight for `_bury`, or is sent again."""
        import aiohttp

        assert replica.client is not None
        try:
            question = batch[0].question
            async for number, answer in replica.client.ask(question, [request.ids for request in batch]):
                self._answered(replica, batch[number], answer)
            if self._unanswered(replica, batch):
                raise Fault("the server left prompts unanswered")
        except Refused as error:
            left = self._unanswered(replica, batch)
            if len(left) == 1:
                self._quarantine(replica, left[0], f"refused: {error}")
                return
            for request in left:
                self._send(replica, [request])
        except TimeoutError:
            replica.call_alarm(f"did not answer within {self.serve.request_timeout_s} s")
        except (Fault, aiohttp.ClientError) as error:
            await self._failed(replica, batch, error)
        except Exception as error:
            self._fail(error)

    async def _failed(self, replica: _Replica, batch: list[_Request], error: Exception) -> None:
        """A call has failed: by the server's death, which is `_live`'s to see; else it is tried again, one by one."""
        await asyncio.sleep(PAUSE_S)
        assert replica.server is not None
        if replica.server.died():
            replica.alarmed.set()
            return
        left = self._unanswered(replica, batch)
        for request in left:
            request.tries += 1
        if any(request.tries >= TRIES for request in left):
            for request in left:
                request.tries = 0
            replica.call_alarm(f"failed {TRIES} times ({type(error).__name__}: {error})")
            return
        for request in left:
            self._send(replica, [request])

    def _unanswered(self, replica: _Replica, batch: list[_Request]) -> list[_Request]:
        return [request for request in batch if request in replica.in_flight]

    def _answered(self, replica: _Replica, request: _Request, answer: Score | Generation) -> None:
        replica.failures = 0
        self._release(replica, request)
        tokens = cached = 0
        if isinstance(answer, Generation):
            tokens, cached = answer.tokens, answer.cached
        else:
            answer = replace(answer, replica=replica.number)
        self._sums["requests"] += 1
        self._sums["cached_tokens"] += cached
        self._sums["input_tokens"] += len(request.ids)
        self._sums["output_tokens"] += tokens
        others_wait = replica.own.waiting + self._queues[replica.seat.model].waiting > 0
        replica.limit.answered(len(request.ids) - cached + tokens, type(answer).__name__, others_wait, replica.sign)
        if not request.future.done():
            request.future.set_result(answer)

    def _quarantine(self, replica: _Replica, request: _Request, reason: str) -> None:
        self._release(replica, request)
        self._sums["quarantined"] += 1
        if not request.future.done():
            request.future.set_exception(Quarantined(reason))

    def _release(self, replica: _Replica, request: _Request) -> None:
        replica.sign = time.monotonic()
        if request in replica.in_flight:
            del replica.in_flight[request]
            if not replica.in_flight:
                replica.idle_since = replica.sign
        self._pump_soon()

    # servers: start, watch, bury, start again

    async def _start(self, replica: _Replica) -> None:
        """Start its server; ServerError when that fails."""
        async with replica.start_lock:
            serve = replace(self.serve, mem_fraction=self._memory(replica))
            if serve.port is not None:
                serve = replace(serve, port=serve.port + replica.number)
            server = Server(replica.seat.model, serve, replica.log, replica.seat.gpu, replica.seat.cores)
            replica.server = server
            await asyncio.get_running_loop().run_in_executor(replica.keeper, server.start)
        replica.alarm = None
        replica.alarmed.clear()
        replica.client = await Client(server).__aenter__()
        replica.idle_since = time.monotonic()
        self._pump_soon()

    def _memory(self, replica: _Replica) -> float | None:
        """Its share of the memory still free, from its share of the whole: that is how SGLang reads it on a GPU."""
        share = replica.seat.memory
        if share is None or replica.seat.gpu is None:
            return share
        others = [r for r in self._replicas if r.seat.gpu == replica.seat.gpu and r is not replica]
        taken = sum(share for other in others if other.server is not None)
        return share / (1 - taken)

    async def _live(self, replica: _Replica) -> None:
        """See its server through its deaths; what cannot be mended ends the pool."""
        try:
            while True:
                reason, words = await self._watch(replica)
                await self._bury(replica, reason)
                if replica.failures > self.serve.restarts:
                    raise ServerError(f"{self.serve.restarts} restarts in a row without an answer: {words}")
                await self._revive(replica)
                poison, replica.poison = replica.poison, None
                if poison is not None:  # only now: the new server has generated a token, so it is not to blame
                    deaths = f"{poison.deaths} times, alone the last time"
                    self._quarantine(replica, poison, f"killed the server {deaths}: {reason}")
        except Exception as error:
            self._fail(error)

    async def _watch(self, replica: _Replica) -> tuple[str, str]:
        """Wait for its server's end: what happened, and the same with the log's last lines."""
        server = replica.server
        assert server is not None
        while True:
            asleep = time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(replica.alarmed.wait(), POLL_S)
            if time.monotonic() - asleep > 10 * POLL_S:  # it was we who stood still (Slurm can suspend a job)
                replica.sign = time.monotonic()
            reason = replica.alarm
            if how := server.died():
                reason = f"ended {how}"
            quiet = time.monotonic() - max(replica.sign, server.last_line)
            if reason is None and replica.in_flight and quiet > self.serve.stall_timeout_s:
                reason = f"neither answered nor logged a line for {self.serve.stall_timeout_s} s"
            if reason is not None:
                return reason, await asyncio.to_thread(server.describe, reason)
            replica.alarmed.clear()

    async def _bury(self, replica: _Replica, reason: str) -> None:
        """End what is left of its server and make suspects of its requests, or find the one that did it."""
        client, replica.client = replica.client, None
        assert client is not None
        calls = list(replica.calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await client.__aexit__(None, None, None)
        await self._stop(replica, at_once=True)
        left = [request for request in replica.in_flight if not request.future.done()]
        if replica.in_flight:
            replica.idle_since = time.monotonic()
        replica.in_flight.clear()
        for request in left:
            request.deaths += 1
        # A death that narrows the suspects down brings the end nearer and is not held against the server.
        if not (replica.on_trial and len(left) < replica.victims):
            replica.failures += 1
        for order, request in replica.own.clear():  # nothing is left of what it had read
            self._queues[replica.seat.model].push(order, request)
        self._pump_soon()
        replica.on_trial = False
        replica.victims = len(left)
        if len(left) == 1 and left[0].deaths > 1:
            replica.poison = left[0]
            return
        middle = (len(left) + 1) // 2
        replica.suspects.extendleft(half for half in (left[middle:], left[:middle]) if half)

    async def _revive(self, replica: _Replica) -> None:
        """Start it again, after 1, 2, 4 ... seconds; a start that fails counts as one more death."""
        while True:
            if replica.failures:
                await asyncio.sleep(min(2.0 ** (replica.failures - 1), LONGEST_BACK_OFF_S))
            self._sums["restarts"] += 1
            try:
                await self._start(replica)
                return
            except (ServerError, UserError):
                replica.server = None
                replica.failures += 1
                if replica.failures > self.serve.restarts:
                    raise

    async def _stop(self, replica: _Replica, at_once: bool = False) -> None:
        server = replica.server
        if server is None:
            return
        if at_once:
            server.abort()
        await asyncio.get_running_loop().run_in_executor(replica.keeper, server.stop)
        replica.server = None

    def _fail(self, error: BaseException) -> None:
        """The pool cannot go on: all requests, now and later, get this error."""
        if self._error is None:
            self._error = error
        for request in self._all_requests():
            if not request.future.done():
                request.future.set_exception(_again(error))

    def _all_queues(self) -> list[_Queue]:
        return [*self._queues.values(), *(replica.own for replica in self._replicas)]

    def _all_requests(self) -> Iterator[_Request]:
        for queue in self._all_queues():
            yield from (request for _, request in queue.clear())
        for replica in self._replicas:
            yield from replica.in_flight
            yield from itertools.chain(*replica.suspects, [replica.poison] if replica.poison else [])
            replica.suspects.clear()

    async def _close(self) -> None:
        """Stop everything; goes through to the end even when it is cancelled meanwhile."""
        closing = asyncio.ensure_future(self._close_all())
        cancelled = None
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError as error:
                cancelled = error
        closing.result()
        if cancelled is not None:
            raise cancelled

    async def _close_all(self) -> None:
        busy = {replica.number for replica in self._replicas if replica.in_flight or replica.client is None}
        tasks = [*self._lives, *(call for replica in self._replicas for call in replica.calls)]
        for task in tasks:
            task.cancel()
        self._fail(ServerError("the pool of servers is closed"))
        for replica in self._replicas:
            if replica.client is not None:
                await replica.client.__aexit__(None, None, None)
        await asyncio.gather(*tasks, return_exceptions=True)
        # Nobody waits for what is in flight, so a busy server need not drain.
        stops = [self._stop(replica, at_once=replica.number in busy) for replica in self._replicas]
        results = await asyncio.gather(*stops, return_exceptions=True)
        for replica in self._replicas:
            replica.keeper.shutdown(wait=False)
        for result in results:
            if result is not None:
                raise result


def _room(replica: _Replica) -> int:
    return replica.limit.value - len(replica.in_flight)


def _again(error: BaseException) -> BaseException:
    """The error for one more caller: an exception of its own, so that tracebacks do not pile up."""
    return ServerError(str(error)) if isinstance(error, ServerError) else error
