"""The pool of servers, against a small real server process that answers, dies, hangs or refuses on a marked token."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import echo_server
import psutil
import pytest

from prox_hpc.config import Serve
from prox_hpc.errors import UserError
from prox_hpc.serve.client import Generation, Score
from prox_hpc.serve.pool import Pool, Quarantined
from prox_hpc.serve.server import ServerError

MARK = 999_983
KEEP, DROP = 17, 18


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder that passes for a model's."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return str(folder)


def echo(*options: str, **settings: Any) -> Serve:
    """Settings whose server is the echo server with these options."""
    command = [sys.executable, str(echo_server.__file__), "--record", *options]
    known = {"device": "cpu", "max_total_tokens": 1, "requests_in_flight": 16, "stall_timeout_s": 60, "restarts": 2}
    return Serve(command=command, **{**known, **settings})


def prompts(count: int, marked: Sequence[int] = ()) -> list[list[int]]:
    """Prompts of different lengths; those numbered in `marked` hold the marked token."""
    return [[*range(n, 2 * n + 3), *([MARK] if n in marked else [])] for n in range(count)]


def scored(ids: Sequence[int]) -> Score:
    return Score(*echo_server.score(ids, 0.5))


def generated(ids: Sequence[int]) -> Generation:
    text = echo_server.program(ids)
    return Generation(text, False, 1 + len(text) // 4)


def servers() -> list[psutil.Process]:
    """The server processes that this process started."""
    return [child for child in psutil.Process().children() if "--model-path" in child.cmdline()]


def run(model: str, serve: Serve, ask: Callable[[Pool], Awaitable[Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """What `ask` returns, and what each server says of itself at its end (only those that ended in peace)."""
    logs = Path(model).parent / "logs"

    async def main() -> Any:
        async with Pool([model], serve, logs) as pool:
            return await ask(pool)

    result = asyncio.run(main())
    assert not servers()
    lines = [line for log in sorted(logs.iterdir()) for line in log.read_text().splitlines()]
    return result, [json.loads(line) for line in lines if line.startswith('{"cpu_s"')]


async def all_scores(pool: Pool, model: str, asked: Sequence[Sequence[int]]) -> list[Any]:
    return await asyncio.gather(*(pool.score(model, ids, KEEP, DROP) for ids in asked), return_exceptions=True)


def check(asked: Sequence[Sequence[int]], answers: Sequence[Any], reason: str) -> None:
    """Marked prompts are in quarantine for that reason, all others have their own answers."""
    for ids, answer in zip(asked, answers, strict=True):
        if MARK in ids:
            assert isinstance(answer, Quarantined), answer
            assert reason in answer.reason
        else:
            assert answer == scored(ids)


def test_every_request_gets_its_own_answer_and_they_travel_together(model: str) -> None:
    asked = prompts(100)

    async def ask(pool: Pool) -> tuple[list[Any], dict[str, float]]:
        jobs: list[Awaitable[Any]] = [pool.score(model, ids, KEEP, DROP) for ids in asked]
        jobs += [pool.generate(model, ids, 50, "root ::= x", [0]) for ids in asked]
        assert pool.version == "echo"
        return await asyncio.gather(*jobs), pool.figures()

    (answers, figures), (stats,) = run(model, echo(requests_in_flight=32, batch_requests=8), ask)
    assert answers == [scored(ids) for ids in asked] + [generated(ids) for ids in asked]
    assert max(len(call) for call in stats["calls"]) == 8
    assert len(stats["calls"]) < 40
    assert figures["requests"] == 200
    assert figures["input_tokens"] == 2 * sum(len(ids) for ids in asked)
    assert figures["output_tokens"] == sum(generated(ids).tokens for ids in asked)
    assert (figures["waiting"], figures["in_flight"], figures["limit"]) == (0, 0, 32)


def test_lower_orders_go_first_and_within_one_the_longest_prompt(model: str) -> None:
    async def ask(pool: Pool) -> None:
        lengths = [(1, 30), (0, 10), (1, 50), (0, 20), (2, 99)]
        await asyncio.gather(*(pool.score(model, [5] * length, KEEP, DROP, order) for order, length in lengths))

    _, (stats,) = run(model, echo(requests_in_flight=1), ask)
    assert stats["calls"] == [[20], [10], [50], [30], [99]]


def test_what_goes_on_from_a_score_goes_first_and_to_the_same_server(model: str) -> None:
    asked = prompts(40)

    async def one(pool: Pool, ids: list[int]) -> None:
        score = await pool.score(model, ids, KEEP, DROP)
        await pool.generate(model, [*range(1000), *ids], 50, after=score)

    async def ask(pool: Pool) -> None:
        await asyncio.gather(*(one(pool, ids) for ids in asked))

    _, servers = run(model, echo("--delay", "0.02", replicas=2, requests_in_flight=2), ask)
    for stats in servers:
        lengths = [length for call in stats["calls"] for length in call]
        scores = [length for length in lengths if length < 1000]
        assert 10 <= len(scores) <= 30
        assert {length - 1000 for length in lengths if length >= 1000} == set(scores)
        assert all(lengths.index(1000 + score) - lengths.index(score) <= 4 for score in scores)


def test_what_goes_on_from_a_score_of_a_dead_server_is_answered_by_another(model: str) -> None:
    asked = prompts(12)

    async def ask(pool: Pool) -> tuple[list[Any], list[int]]:
        scores = await all_scores(pool, model, asked)
        pairs = zip(asked, scores, strict=True)
        waiting = [asyncio.ensure_future(pool.generate(model, ids, 50, after=score)) for ids, score in pairs]
        await asyncio.sleep(0.05)
        servers()[0].kill()
        return await asyncio.gather(*waiting), [score.replica for score in scores]

    (answers, read), stats = run(model, echo("--delay", "0.05", replicas=2, requests_in_flight=1), ask)
    assert answers == [generated(ids) for ids in asked]
    # The survivor answered more than its own: the other one comes back only after a second.
    assert any(one["requests"] > 2 * read.count(number) for number, one in enumerate(stats))


def test_a_bound_that_sinks_below_what_is_in_flight_waits(model: str) -> None:
    asked = prompts(12)

    async def ask(pool: Pool) -> list[Any]:
        scores = await all_scores(pool, model, asked)
        pairs = zip(asked, scores, strict=True)
        waiting = [asyncio.ensure_future(pool.generate(model, ids, 50, after=score)) for ids, score in pairs]
        while pool.figures()["in_flight"] < 8:
            await asyncio.sleep(0)
        pool._replicas[0].limit.value = 2  # as when a larger bound made the server no faster
        return await asyncio.gather(*waiting)

    answers, _ = run(model, echo("--delay", "0.2", requests_in_flight=8), ask)
    assert answers == [generated(ids) for ids in asked]


def test_the_bound_is_filled_and_kept(model: str) -> None:
    async def ask(pool: Pool) -> list[Any]:
        return await all_scores(pool, model, prompts(80))

    _, (stats,) = run(model, echo("--delay", "0.05", requests_in_flight=12, batch_requests=8), ask)
    assert stats["most_in_flight"] == 12
    assert max(len(call) for call in stats["calls"]) == 3  # a quarter: the server never runs dry


def test_without_a_bound_it_rises_while_that_makes_the_server_faster(model: str) -> None:
    """The echo takes the same time for a call however many are in flight."""

    async def ask(pool: Pool) -> None:
        assert pool.figures()["limit"] == 16
        while pool.figures()["limit"] < 32:
            await all_scores(pool, model, prompts(200))

    _, (stats,) = run(model, echo("--delay", "0.02", requests_in_flight=None), ask)
    assert stats["most_in_flight"] >= 16


def test_a_killed_server_is_started_again_and_nothing_is_lost(model: str) -> None:
    asked = prompts(60)

    async def ask(pool: Pool) -> tuple[list[Any], dict[str, float]]:
        answers = asyncio.create_task(all_scores(pool, model, asked))
        while pool.figures()["requests"] < 10:
            await asyncio.sleep(0.02)
        servers()[0].kill()
        return await answers, pool.figures()

    (answers, figures), (stats,) = run(model, echo("--delay", "0.1"), ask)
    assert answers == [scored(ids) for ids in asked]
    assert figures["restarts"] == 1
    assert figures["quarantined"] == 0
    assert stats["requests"] < 60  # the rest was the first server's


def test_requests_that_kill_are_found_and_their_neighbours_come_through(model: str) -> None:
    asked = prompts(20, marked=[3, 15])

    async def ask(pool: Pool) -> tuple[list[Any], dict[str, float]]:
        return await all_scores(pool, model, asked), pool.figures()

    (answers, figures), _ = run(model, echo("--die-on", str(MARK), requests_in_flight=4), ask)
    check(asked, answers, "killed the server")
    assert "SIGKILL" in next(answer.reason for answer in answers if isinstance(answer, Quarantined))
    assert figures["quarantined"] == 2
    assert figures["requests"] == 18


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"requests_in_flight": 8, "stall_timeout_s": 1}, "neither answered nor logged a line for 1 s"),
        ({"requests_in_flight": 4, "request_timeout_s": 1}, "did not answer within 1 s"),
    ],
)
def test_a_server_that_hangs_or_leaves_one_request_waiting_is_ended(
    model: str, limits: dict[str, Any], told: str
) -> None:
    asked = prompts(10, marked=[4])

    async def ask(pool: Pool) -> list[Any]:
        return await all_scores(pool, model, asked)

    answers, _ = run(model, echo("--hang-on", str(MARK), **limits), ask)
    check(asked, answers, told)


def test_a_refused_request_is_put_aside_alone(model: str) -> None:
    asked = prompts(20, marked=[0, 7])

    async def ask(pool: Pool) -> tuple[list[Any], dict[str, float]]:
        return await all_scores(pool, model, asked), pool.figures()

    (answers, figures), _ = run(model, echo("--refuse-on", str(MARK), requests_in_flight=32), ask)
    check(asked, answers, "refused:")
    assert figures["restarts"] == 0
    assert figures["quarantined"] == 2


def test_a_request_that_the_server_fails_again_and_again_is_put_aside(model: str) -> None:
    asked = prompts(6, marked=[2])

    async def ask(pool: Pool) -> list[Any]:
        return await all_scores(pool, model, asked)

    answers, _ = run(model, echo("--fail-on", str(MARK), requests_in_flight=8), ask)
    check(asked, answers, "failed 4 times")


def test_a_lost_connection_is_tried_again(model: str) -> None:
    asked = prompts(10, marked=[4])

    async def ask(pool: Pool) -> tuple[list[Any], dict[str, float]]:
        return await all_scores(pool, model, asked), pool.figures()

    (answers, figures), _ = run(model, echo("--hang-up-on", str(MARK)), ask)
    assert answers == [scored(ids) for ids in asked]
    assert figures["restarts"] == 0


def test_a_server_that_answers_nothing_ends_the_pool_with_its_last_words(model: str) -> None:
    async def ask(pool: Pool) -> list[Any]:
        answers = await all_scores(pool, model, prompts(16, marked=range(16)))
        with pytest.raises(ServerError, match="restarts in a row"):
            await pool.score(model, [5], KEEP, DROP)
        return answers

    answers, _ = run(model, echo("--die-on", str(MARK), requests_in_flight=4, restarts=1), ask)
    failed = [answer for answer in answers if isinstance(answer, ServerError)]
    assert failed
    assert len(failed) + sum(isinstance(answer, Quarantined) for answer in answers) == 16
    assert "1 restarts in a row without an answer" in str(failed[0])
    assert "last lines of" in str(failed[0])


def test_a_start_that_fails_is_told_at_once(model: str, tmp_path: Path) -> None:
    async def main(serve: Serve) -> None:
        async with Pool([model], serve, tmp_path / "logs"):
            raise AssertionError("it started")

    with pytest.raises(ServerError, match=r"(?s)exit status 3.*broken"):
        asyncio.run(
            main(Serve(**{**vars(echo(replicas=2)), "command": [sys.executable, "-c", "exit(print('broken') or 3)"]}))
        )
    assert not servers()
    with pytest.raises(UserError, match="max_total_tokens"):
        asyncio.run(main(echo(max_total_tokens=None)))
    with pytest.raises(UserError, match="no such model folder"):
        Pool([model + "x"], echo(), tmp_path)


def test_two_replicas_share_the_work_and_the_cores(model: str) -> None:
    asked = prompts(100)
    answers, stats = run(model, echo("--delay", "0.02", replicas=2), lambda pool: all_scores(pool, model, asked))
    assert answers == [scored(ids) for ids in asked]
    assert min(server["requests"] for server in stats) >= 30
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(stats[0]["cores"]) & set(stats[1]["cores"])


def test_a_replica_goes_on_while_another_is_down(model: str) -> None:
    asked = prompts(100)

    async def ask(pool: Pool) -> list[Any]:
        gone, left = servers()
        gone.kill()
        answers = await all_scores(pool, model, asked)
        assert left.is_running()
        return answers

    answers, stats = run(model, echo("--delay", "0.02", replicas=2), ask)
    assert answers == [scored(ids) for ids in asked]
    assert max(server["requests"] for server in stats) >= 80


def test_every_gpu_has_its_server_and_servers_on_one_gpu_share_its_memory(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SGLang reads the fraction as one of the memory that is free when it starts."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")

    async def ask(pool: Pool) -> list[str]:
        await all_scores(pool, model, prompts(64))
        return sorted(line[line.index("--mem-fraction-static") + 1] for line in (p.cmdline() for p in servers()))

    fractions, stats = run(model, echo("--delay", "0.02", device="cuda", replicas=2, mem_fraction=0.8), ask)
    assert [round(float(fraction), 3) for fraction in fractions] == [0.4, 0.4, 0.667, 0.667]
    assert sorted(server["gpu"] for server in stats) == ["3", "3", "5", "5"]


def test_two_models_have_a_server_each(model: str, tmp_path: Path) -> None:
    other = str(Path(model).rename(tmp_path / "other"))
    Path(model).mkdir()
    for name in ("config.json", "tokenizer.json"):
        (Path(model) / name).write_text("{}")

    async def main() -> None:
        async with Pool([model, other, model], echo(), tmp_path / "logs") as pool:
            assert len(servers()) == 2
            await all_scores(pool, model, prompts(5))
            await all_scores(pool, other, prompts(7))

    asyncio.run(main())
    lines = [(tmp_path / "logs" / f"server-{n}.log").read_text().splitlines()[-1] for n in (0, 1)]
    assert [json.loads(line)["requests"] for line in lines] == [5, 7]


@pytest.mark.parametrize("during", ["start", "work", "restart"])
def test_cancelling_leaves_no_process(model: str, tmp_path: Path, during: str) -> None:
    serve = echo("--hang-on", str(MARK), replicas=2)
    if during == "start":
        serve.command = [sys.executable, "-c", "import time; time.sleep(600)"]

    async def work() -> None:
        async with Pool([model], serve, tmp_path / "logs") as pool:
            if during == "restart":
                for server in servers():
                    server.kill()
                while not pool.figures()["restarts"]:
                    await asyncio.sleep(0.05)
            await all_scores(pool, model, prompts(20, marked=range(20)))

    async def main() -> None:
        task = asyncio.create_task(work())
        while len(servers()) < 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not servers()


def test_a_caller_that_gives_up_costs_nothing(model: str) -> None:
    async def ask(pool: Pool) -> list[Any]:
        impatient = [asyncio.create_task(pool.score(model, [5] * 9, KEEP, DROP)) for _ in range(50)]
        await asyncio.sleep(0.01)
        for task in impatient:
            task.cancel()
        await asyncio.gather(*impatient, return_exceptions=True)
        return await all_scores(pool, model, prompts(10))

    answers, (stats,) = run(model, echo("--delay", "0.1", requests_in_flight=4), ask)
    assert answers == [scored(ids) for ids in prompts(10)]
    assert stats["requests"] <= 14  # what was on its way already


def test_failing_work_stops_the_servers(model: str) -> None:
    async def ask(pool: Pool) -> None:
        raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        run(model, echo(), ask)
    assert not servers()
