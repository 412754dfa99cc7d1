"""The engine around the servers: blocks shared by tasks, signals, phases, quarantine. The echo server answers at once,
by the token ids alone, so that what different runs publish can be compared.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import echo_server
import pyarrow.parquet as pq
import pytest

from prox_hpc.corpus.read import Block, Document
from prox_hpc.leases import Leases
from prox_hpc.publish import publish_json
from prox_hpc.refine import execute, tokens
from prox_hpc.refine import task as refine
from prox_hpc.refine.batcher import Batcher
from prox_hpc.refine.claims import Claims
from prox_hpc.refine.engine import Room
from prox_hpc.refine.telemetry import Peak
from prox_hpc.stop import Interrupted
from prox_hpc.study.store import write_step
from prox_hpc.task import Step, Task

Publish = Callable[..., str]
BLOCKS, SIZE = 6, 30
MARKED = "A page with the marked word zzz."


def page(number: int) -> str:
    return "\n".join(f"{number} line {line} of a page about Home | Contact" for line in range(1 + number % 7))


def echo(*options: str, **more: Any) -> dict[str, Any]:
    command = [sys.executable, echo_server.__file__, "--programs", "remove_lines(0, 0)", *options]
    command += ["--programs", 'normalize("Home | ", "")\nremove_lines(1, 1)']
    return {"command": command, "device": "cpu", "max_total_tokens": 9000, "requests_in_flight": 8, **more}


@pytest.fixture
def corpus(publish_corpus: Publish) -> str:
    numbers = range(BLOCKS * SIZE)
    documents = [Document(f"d{number}", page(number), {"url": f"https://x.example/{number}"}) for number in numbers]
    return publish_corpus(*(documents[start : start + SIZE] for start in range(0, BLOCKS * SIZE, SIZE)))


@pytest.fixture
def make_task(store: Path, corpus: str, tiny_refiner: Path) -> Callable[..., Task]:
    """make_task(index, tasks, name=, serve=, refiner=..., runtime...) -> a task of a refine step over the corpus."""

    def make(index: int = 0, tasks: int = 1, **runtime: Any) -> Task:
        settings = {"prompt": "tags", "max_chunk_tokens": 300, "max_doc_tokens": 300, "max_new_tokens": 24}
        settings |= {"doc_model": str(tiny_refiner), "chunk_model": str(tiny_refiner), **runtime.pop("refiner", {})}
        config = {"refiner": settings, "doc_stage": True, "chunk_stage": True, "program_all": False}
        runtime = {"serve": echo(), "assignment": "leased", "lease_s": 20, **runtime}
        step = Step("refine", runtime.pop("name", "web-echo"), config, {"corpus": corpus}, tasks, runtime=runtime)
        return Task(step, index, store)

    return make


def products(task: Task) -> dict[str, Any]:
    """What was published: bytes of the corpus, rows of the programs, manifests without what time decides."""
    found: dict[str, Any] = {}
    for path in sorted((task.out / "blocks").iterdir()):
        if path.name.endswith("refined.parquet"):
            found[path.name] = path.read_bytes()
        elif path.name.endswith("programs.parquet"):
            found[path.name] = pq.read_table(path).to_pylist()
        else:
            manifest = json.loads(path.read_text())
            found[path.name] = {
                name: manifest[name] for name in manifest.keys() - {"seconds", "documents_per_second", "speed"}
            }
    return found


def finish(task: Task) -> dict[str, Any]:
    """Seal the step; its summary."""
    summary = refine.seal(task)
    publish_json(task.out / "artifact.json", {"summary": summary})
    return summary


def work(task: Task) -> "subprocess.Popen[str]":
    """The task in a process of its own, as a scheduler starts it."""
    path = write_step(task.store, task.step)
    command = [sys.executable, "-m", "prox_hpc.worker", str(path), str(task.index)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_tasks_share_blocks_and_any_number_gives_the_same(make_task: Callable[..., Task]) -> None:
    alone = make_task(name="alone")
    refine.run(alone)
    summary = finish(alone)
    assert summary["documents"]["in"] == BLOCKS * SIZE
    assert summary["documents"]["edited"] > SIZE
    assert summary["documents"]["dropped"] > SIZE
    # one planned task of two, and a helper beyond the planned ones; the other planned one never comes
    several = [make_task(0, 2, serve=echo("--delay", "0.1")), make_task(7, 2, serve=echo("--delay", "0.1"))]
    running = [work(task) for task in several]
    for process in running:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    assert finish(several[0])["documents"] == summary["documents"]
    assert products(several[0]) == products(alone)
    states = several[0].state / "tasks"
    done = [json.loads((states / f"{index:05d}.json").read_text())["done"] for index in (0, 7)]
    assert sum(done) == BLOCKS * SIZE
    assert min(done) >= SIZE, "one of them did everything"
    assert not list((several[0].state / "leases").iterdir())


def test_static_tasks_keep_to_their_share(make_task: Callable[..., Task]) -> None:
    task = make_task(1, 2, assignment="static")
    refine.run(task)
    there = sorted(path.name for path in (task.out / "blocks").glob("?????.json"))
    assert there == ["00001.json", "00003.json", "00005.json"]
    with pytest.raises(RuntimeError, match="3 of 6 blocks are missing"):
        refine.seal(task)


def test_blocks_in_living_hands_are_left_and_those_of_the_dead_taken(
    make_task: Callable[..., Task], tmp_path: Path
) -> None:
    task = make_task(0, 2)
    with Leases(task.state / "leases", "another task", 60) as others:
        assert others.take("00003")
        refine.run(task)
        assert not (task.out / "blocks" / "00003.json").exists()
    refine.run(task)
    assert finish(task)["documents"]["in"] == BLOCKS * SIZE


def test_a_step_of_one_task_waits_for_its_helpers(make_task: Callable[..., Task]) -> None:
    """It is sealed by that task, so that blocks in a helper's hands must be there first, or become free."""
    task = make_task()
    with Leases(task.state / "leases", "a helper", 60) as helper:
        assert helper.take("00003")
        timer = threading.Timer(5, helper.release, ["00003"])
        timer.start()
        refine.run(task)
    assert finish(task)["documents"]["in"] == BLOCKS * SIZE


@pytest.mark.parametrize("grace_s", [0.0, 60.0])
def test_told_to_stop_it_publishes_whole_blocks_and_says_so(
    make_task: Callable[..., Task], publish_corpus: Publish, grace_s: float
) -> None:
    """With time left it finishes the blocks in its hands; without, it gives them up."""
    blocks = [[Document(f"{n}-{i}", page(n * i), {}) for i in range(120)] for n in range(BLOCKS)]
    inputs = {"corpus": publish_corpus(*blocks)}  # more than there is room for
    step = make_task(serve=echo("--delay", "0.1", requests_in_flight=8)).step
    task = Task(replace(step, inputs=inputs), 0, make_task().store)

    def stop() -> None:
        while not any((task.out / "blocks").glob("?????.json" if grace_s else ".*.tmp")):
            time.sleep(0.05)
        task.stop.warn(grace_s)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Interrupted, match=r"\d blocks done"):
        refine.run(task)
    published = sorted(path.name.split(".")[0] for path in (task.out / "blocks").glob("?????.json"))
    assert len(published) < BLOCKS
    assert bool(published) == bool(grace_s)
    assert not list((task.out / "blocks").glob(".*.tmp"))
    assert not list((task.state / "leases").iterdir())
    again = Task(replace(task.step, runtime={**task.step.runtime, "serve": echo()}), 0, task.store)
    refine.run(again)
    undisturbed = Task(replace(make_task(name="undisturbed").step, inputs=inputs), 0, task.store)
    refine.run(undisturbed)
    assert products(again) == products(undisturbed)


@pytest.mark.parametrize("assignment", ["leased", "static"])
def test_a_last_block_given_up_is_not_called_done(
    make_task: Callable[..., Task], publish_corpus: Publish, assignment: str
) -> None:
    """All blocks are taken when the signal comes, so that none is left over but the one in its hands."""
    corpus = publish_corpus([Document(str(n), page(n), {}) for n in range(SIZE)])
    task = make_task(0, 2, serve=echo("--delay", "1"), assignment=assignment)
    task = Task(replace(task.step, inputs={"corpus": corpus}), 0, task.store)

    def stop() -> None:
        while not list((task.out / "blocks").glob(".*.tmp")):
            time.sleep(0.05)
        task.stop.end()

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(Interrupted):
        refine.run(task)
    assert not list((task.out / "blocks").iterdir())


def test_told_to_stop_while_servers_start_or_helpers_work_it_ends(make_task: Callable[..., Task]) -> None:
    slow = make_task(serve=echo() | {"command": [sys.executable, "-c", "import time; time.sleep(600)"]})
    threading.Timer(3, slow.stop.end).start()
    with pytest.raises(Interrupted, match="servers were not up yet"):
        refine.run(slow)
    assert not list((slow.state / "leases").iterdir())
    waiting = make_task()
    with Leases(waiting.state / "leases", "a helper", 60) as helper:
        assert helper.take("00003")
        threading.Timer(15, waiting.stop.end).start()
        with pytest.raises(Interrupted):
            refine.run(waiting)


def test_phases_give_what_one_pass_gives(make_task: Callable[..., Task]) -> None:
    fused, phased = make_task(name="fused"), make_task(name="phased", layout="phased")
    for task in (fused, phased):
        refine.run(task)
    assert products(phased) == products(fused)
    assert len(list((phased.state / "scores").iterdir())) == BLOCKS


@pytest.mark.parametrize(("quarantine", "layout"), [("unrefined", None), ("dropped", None), ("unrefined", "phased")])
def test_documents_that_the_server_cannot_answer_are_never_lost(
    make_task: Callable[..., Task], publish_corpus: Publish, tiny_refiner: Path, quarantine: str, layout: str | None
) -> None:
    word = "\u0416"  # the bytes of a letter that the other pages lack
    token = tokens.load(str(tiny_refiner)).encode([word])[0][0]
    pages = [Document(str(n), page(n) + (word if n in (5, 20) else ""), {}) for n in range(25)]
    task = make_task(refiner={"quarantine": quarantine}, serve=echo("--refuse-on", str(token)), layout=layout)
    step = replace(task.step, inputs={"corpus": publish_corpus(pages)})
    task = Task(step, 0, task.store)
    refine.run(task)
    summary = finish(task)
    assert summary["reasons"]["quarantined"] == 2
    rows = {row["id"]: row for row in pq.read_table(task.out / "blocks" / "00000.programs.parquet").to_pylist()}
    for identity in ("5", "20"):
        assert rows[identity]["outcome"] == ("untouched" if quarantine == "unrefined" else "dropped")
        assert rows[identity]["quarantined"].startswith("refused")
        assert (rows[identity]["doc_score"], rows[identity]["chunks"]) == (None, [])
    kept = {row["id"]: row["text"] for row in pq.read_table(task.out / "blocks" / "00000.refined.parquet").to_pylist()}
    assert ("5" in kept) == (quarantine == "unrefined")
    assert kept.get("20", pages[20].text) == pages[20].text

    arm = {"kind": "refined", "doc": True, "chunk": True, "profile": "v1", "quarantine": quarantine}
    executed = Task(Step("execute", "prox_dc", {"arm": arm}, {"programs": step.address, **step.inputs}), 0, task.store)
    execute.run(executed)
    made = executed.out / "blocks" / "00000.parquet"
    assert made.read_bytes() == (task.out / "blocks" / "00000.refined.parquet").read_bytes()

    strict = Task(replace(step, name="strict", runtime={**step.runtime, "max_quarantined": 1}), 0, task.store)
    with pytest.raises(RuntimeError, match=r"max_quarantined=1.*the last one '(5|20)'"):
        refine.run(strict)


def test_telemetry_is_told_in_lines_manifest_and_status(make_task: Callable[..., Task], tiny_refiner: Path) -> None:
    task = make_task(peak_tflops=1e-3)
    refine.run(task)
    lines = [json.loads(line) for line in (task.state / "telemetry" / "00000.jsonl").read_text().splitlines()]
    last = lines[-1]
    assert last["documents"] == BLOCKS * SIZE
    blocks = [json.loads((task.out / "blocks" / f"{block:05d}.json").read_text()) for block in range(BLOCKS)]
    spent = sum(block["tokens"]["doc_prefill"] + block["tokens"]["chunk_prefill"] for block in blocks)
    assert last["pool"]["input_tokens"] == spent
    assert set(last["waited"]) == {"read", "room", "answers"}
    for block in blocks:
        assert block["speed"]["documents_per_second"] > 0
        assert block["speed"]["prefill_roofline"] > 0
    status = json.loads((task.state / "tasks" / "00000.json").read_text())
    assert status["figures"]["input_tokens_per_second"] > 0
    assert Peak(989, 2, 300_000_000).share(1e6) == pytest.approx(1e6 * 6e8 / (2 * 989e12))


def blocks(number: int) -> list[Block]:
    return [Block(index, f"/nowhere/{index}") for index in range(number)]


def taken(claims: Claims) -> Iterator[int]:
    while (block := claims.take()) is not None:
        yield block.index


def test_claims_begin_with_their_share_and_go_on_with_others(tmp_path: Path) -> None:
    done: set[int] = {4}
    with Leases(tmp_path, "a", 60) as first, Leases(tmp_path, "b", 60) as second:
        a = Claims(blocks(7), 0, 2, first, lambda block: block.index in done)
        b = Claims(blocks(7), 1, 2, second, lambda block: block.index in done)
        one = a.take()
        assert one is not None
        assert one.index == 0
        assert a.own_left == 3
        assert list(taken(b)) == [1, 3, 5, 2, 6]
        assert list(taken(a)) == []
        assert a.pending
        done |= {1, 2, 3, 5, 6}
        assert not a.pending
        a.put_back(one)
        assert list(taken(a)) == [0]
    assert list(taken(Claims(blocks(7), 5, 2, None, lambda block: False))) == []
    assert list(taken(Claims(blocks(5), 1, 2, None, lambda block: False))) == [1, 3]


def test_room_bounds_documents_and_bytes_and_lets_a_giant_pass_alone() -> None:
    async def enter(room: Room, sizes: Sequence[int]) -> int:
        """How many get in before one has to wait."""
        for number, size in enumerate(sizes):
            try:
                await asyncio.wait_for(room.enter(size), 0.01)
            except TimeoutError:
                return number
        return len(sizes)

    giant = 1 << 40
    assert asyncio.run(enter(Room(lambda: 3), [1] * 9)) == 3
    assert asyncio.run(enter(Room(lambda: 9), [200 << 20, 50 << 20, 10 << 20])) == 2
    assert asyncio.run(enter(Room(lambda: 9), [giant, 1])) == 1

    async def leave() -> int:
        room = Room(lambda: 1)
        await room.enter(giant)
        asyncio.get_running_loop().call_soon(room.leave, 1, giant)
        await room.enter(7)
        return room.characters

    assert asyncio.run(leave()) == 7


def test_a_batcher_calls_once_for_many_and_raises_to_all() -> None:
    calls: list[list[int]] = []

    def double(numbers: Sequence[int]) -> list[int]:
        calls.append(list(numbers))
        if 13 in numbers:
            raise ValueError("unlucky")
        return [2 * number for number in numbers]

    async def ask() -> list[Any]:
        batcher = Batcher(double, 4)
        found = await asyncio.gather(*(batcher(number) for number in range(9)))
        return [*found, *await asyncio.gather(batcher(13), batcher(1), return_exceptions=True), await batcher(3)]

    found = asyncio.run(ask())
    assert found[:9] == [2 * number for number in range(9)]
    assert [type(error) for error in found[9:11]] == [ValueError, ValueError]
    assert found[11] == 6
    assert [len(call) for call in calls] == [4, 4, 1, 2, 1]
