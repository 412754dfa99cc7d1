"""Tasks that are told to end early, and tasks that come to help. The step is a few lines long; the signals are real."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from prox_hpc.cluster import worker
from prox_hpc.cluster.worker import run_task
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_json
from prox_hpc.stop import Interrupted
from prox_hpc.study.status import row
from prox_hpc.study.store import artifact_dir, task_states, write_step
from prox_hpc.task import Step, Task

STEP = Step("refine", "blocks", {"blocks": 4}, runtime={"assignment": "leased", "grace_s": 60})
Use = Callable[..., None]


def run(task: Task) -> None:
    """Publish blocks until told to stop; the second one tells this very process."""
    for block in range(task.config["blocks"]):
        publish_json(task.out / f"{block}.json", {})
        if block == 1 and task.config.get("signal"):
            os.kill(os.getpid(), task.config["signal"])
            time.sleep(0.5)  # it is heard at once, by another thread
        if task.stop.requested:
            raise Interrupted(f"{task.config['blocks'] - block - 1} blocks are left")


def seal(task: Task) -> dict[str, Any]:
    found = len(list(task.out.glob("[0-9]*.json")))
    if found < task.config["blocks"]:
        raise RuntimeError("blocks are missing")
    return {"blocks": found}


def step(told: int | None, **runtime: Any) -> Step:
    return Step("refine", "blocks", {"blocks": 4, "signal": told}, runtime={**STEP.runtime, **runtime})


@pytest.fixture(autouse=True)
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Steps of the kind `refine` run the code above; use(...) changes parts of it."""

    def put(**changes: Any) -> None:
        code = {"run": run, "seal": seal, "GRACEFUL": True} | changes
        monkeypatch.setitem(sys.modules, "blocks_step", SimpleNamespace(**code))  # type: ignore[arg-type]
        monkeypatch.setitem(worker.MODULES, "refine", "blocks_step")

    put()
    return put


@pytest.fixture
def caught() -> Iterator[list[int]]:
    """Signals that came through to the handlers before; SIGUSR2's ends the process, as submitit's does."""
    numbers: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        if number == signal.SIGUSR2:
            raise SystemExit(-1)

    before = {number: signal.signal(number, catch) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def published(store: Path, one: Step) -> list[str]:
    return sorted(path.name for path in artifact_dir(store, one).glob("[0-9]*.json"))


@pytest.mark.parametrize("told", [signal.SIGUSR2, signal.SIGTERM])
def test_an_interrupted_task_says_so_and_ends_with_a_status_of_its_own(
    tmp_path: Path, told: int, caught: list[int]
) -> None:
    one = step(told)
    path = str(write_step(tmp_path, one))
    with pytest.raises(SystemExit) as end:
        run_task(path, 0)
    assert end.value.code == os.EX_TEMPFAIL == 75
    state = task_states(tmp_path, one)[0]
    assert (state["state"], state["why"]) == ("interrupted", "2 blocks are left")
    assert published(tmp_path, one) == ["0.json", "1.json"]
    assert not (artifact_dir(tmp_path, one) / "artifact.json").exists()
    assert not caught
    shown = row(tmp_path, one, {}, [])
    assert (shown.state, shown.error) == ("stopped", "interrupted: 2 blocks are left")
    os.kill(os.getpid(), signal.SIGTERM)
    assert caught == [signal.SIGTERM], "the handlers before are not back"


def test_the_next_run_of_it_goes_on_and_seals(tmp_path: Path) -> None:
    one = step(signal.SIGTERM)
    path = str(write_step(tmp_path, one))
    with pytest.raises(SystemExit):
        run_task(path, 0)
    publish_json(artifact_dir(tmp_path, one) / "2.json", {})
    publish_json(artifact_dir(tmp_path, one) / "3.json", {})
    with pytest.raises(SystemExit):
        run_task(path, 0)  # it is told again, and complete all the same
    assert worker.main([path, "seal"]) == 0
    assert json.loads((artifact_dir(tmp_path, one) / "artifact.json").read_text())["summary"] == {"blocks": 4}


@pytest.mark.parametrize(("told", "requeued"), [(signal.SIGUSR2, True), (signal.SIGTERM, False)])
def test_a_warned_task_requeues_itself_after_its_end_and_slurm_the_others(
    tmp_path: Path, told: int, requeued: bool, caught: list[int]
) -> None:
    one = step(told)
    with pytest.raises(SystemExit) as end:
        run_task(str(write_step(tmp_path, one)), 0, requeue=lambda: signal.raise_signal(signal.SIGUSR2))
    assert end.value.code == (-1 if requeued else 75)
    assert caught == ([signal.SIGUSR2] if requeued else [])
    assert task_states(tmp_path, one)[0]["state"] == "interrupted"


def test_a_step_that_does_not_poll_is_ended_by_the_handlers_before(tmp_path: Path, use: Use, caught: list[int]) -> None:
    use(GRACEFUL=False)
    with pytest.raises(SystemExit) as end:
        run_task(str(write_step(tmp_path, step(signal.SIGUSR2))), 0)
    assert (end.value.code, caught) == (-1, [signal.SIGUSR2])


def test_the_grace_time_is_the_steps(tmp_path: Path, use: Use) -> None:
    left: list[float] = []

    def look(task: Task) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.5)
        assert task.stop.deadline is not None
        left.append(task.stop.deadline - time.monotonic())

    use(run=look, seal=lambda task: {})
    run_task(str(write_step(tmp_path, step(None, grace_s=4000))), 0)
    assert 2000 < left[0] < 4000


def test_another_task_helps_but_leaves_the_seal_alone(tmp_path: Path) -> None:
    path = str(write_step(tmp_path, STEP))
    run_task(path, 7)
    assert len(published(tmp_path, STEP)) == 4
    assert not (artifact_dir(tmp_path, STEP) / "artifact.json").exists()
    states = task_states(tmp_path, STEP)
    assert [state.get("state") for state in states] == [None, "done"]
    shown = row(tmp_path, STEP, {}, [])
    assert (shown.tasks, shown.tasks_done, shown.helpers) == (1, 0, 1)
    run_task(path, 0)
    assert row(tmp_path, STEP, {}, []).state == "done"


def test_only_leased_blocks_can_be_shared_with_others(tmp_path: Path) -> None:
    path = str(write_step(tmp_path, step(None, assignment="static")))
    with pytest.raises(UserError, match="tasks 0 to 0, not 7"):
        run_task(path, 7)
