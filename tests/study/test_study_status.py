"""What status says of a step, from what its tasks wrote."""

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from prox_hpc.publish import publish_json, replace_json
from prox_hpc.study.status import Row, row
from prox_hpc.study.store import artifact_dir, state_dir
from prox_hpc.task import Step, Task

STEP = Step("generate", "web", {"documents": 2}, tasks=2)


def stated(store: Path, *states: dict[str, Any], slurm: dict[str, list[str]] | None = None) -> Row:
    for index, state in enumerate(states):
        replace_json(state_dir(store, STEP) / "tasks" / f"{index:05d}.json", state)
    return row(store, STEP, slurm or {}, list(slurm or {}))


def here(state: str, pid: int, **more: Any) -> dict[str, Any]:
    return {"state": state, "host": socket.gethostname(), "pid": pid, "updated": time.time(), **more}


def gone() -> int:
    """The pid of a process that is over."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_nothing_begun(tmp_path: Path) -> None:
    assert stated(tmp_path).state == "waiting"


def test_published_is_done(tmp_path: Path) -> None:
    publish_json(artifact_dir(tmp_path, STEP) / "artifact.json", {})
    assert (stated(tmp_path).state, stated(tmp_path).tasks_done) == ("done", 2)


def test_a_living_process_is_running_and_a_dead_one_is_not(tmp_path: Path) -> None:
    assert stated(tmp_path, here("running", os.getpid())).state == "running"
    assert stated(tmp_path, here("running", gone())).state == "stopped"


def test_on_another_machine_a_fresh_status_is_what_there_is(tmp_path: Path) -> None:
    far = {"state": "running", "host": "elsewhere", "pid": 1}
    assert stated(tmp_path, {**far, "updated": time.time()}).state == "running"
    assert stated(tmp_path, {**far, "updated": time.time() - 10_000}).state == "stopped"


def test_a_failed_task_fails_the_step_and_says_why(tmp_path: Path) -> None:
    shown = stated(tmp_path, here("done", 1), here("failed", 1, error="ValueError: no"))
    assert (shown.state, shown.error, shown.tasks_done) == ("failed", "ValueError: no", 1)


def test_slurm_has_the_last_word(tmp_path: Path) -> None:
    assert stated(tmp_path, slurm={"7": ["PENDING", "PENDING"]}).state == "queued"
    assert stated(tmp_path, slurm={"7": ["CANCELLED"]}).state == "cancelled"
    assert stated(tmp_path, slurm={"7": ["COMPLETED", "CANCELLED"]}).state == "cancelled"  # its input failed midway
    assert stated(tmp_path, here("failed", 1), slurm={"7": ["FAILED", "COMPLETED"]}).state == "failed"
    assert stated(tmp_path, here("failed", 1), slurm={"7": ["REQUEUED", "RUNNING"]}).state == "running"


def test_time_left_counts_the_work_and_not_the_start_up(tmp_path: Path) -> None:
    now = time.time()
    state = here("running", os.getpid(), begun=now - 10, begun_at=50, done=100, total=200, unit="documents")
    assert 19 < (stated(tmp_path, state).eta_s or 0) < 21


def test_progress_of_a_task_is_what_status_reads(tmp_path: Path) -> None:
    task = Task(STEP, 1, tmp_path)
    task.progress(3, 10, "blocks", documents_per_second=12.5)
    shown = row(tmp_path, STEP, {}, [])
    assert (shown.state, shown.done, shown.unit) == ("running", 3, "blocks")
    assert "12.5 documents/s" in shown.progress
