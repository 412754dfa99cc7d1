"""Claims on steps: one launch wins, living jobs are shared, dead ones taken over, and nobody loses a fresh claim."""

import threading
import time
from pathlib import Path

import pytest

from prox_hpc.cluster import slurm
from prox_hpc.publish import publish_json, replace_json
from prox_hpc.study.store import state_dir
from prox_hpc.task import Step

STEP = Step("generate", "web", {"documents": 1})


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that squeue would show, and nothing is really cancelled (there is no Slurm in these tests)."""
    alive: list[str] = []
    monkeypatch.setattr(slurm, "alive_jobs", lambda: set(alive))
    monkeypatch.setattr(slurm, "cancel", lambda jobs: [alive.remove(job) for job in jobs])
    return alive


def record(store: Path, *jobs: str) -> None:
    replace_json(state_dir(store, STEP) / "claim.json", {"jobs": list(jobs), "run": "other", "time": time.time()})


def claim(store: Path, share: bool = True) -> list[str]:
    return slurm._claim(store, STEP, Path("mine"), share)


def test_the_first_claim_is_ours(tmp_path: Path) -> None:
    assert claim(tmp_path) == []
    assert slurm.read_claim(tmp_path, STEP)["run"] == "mine"


def test_a_living_job_is_shared_and_a_dead_one_taken_over(tmp_path: Path, queue: list[str]) -> None:
    record(tmp_path, "7", "8")
    queue += ["8"]
    assert claim(tmp_path) == ["8"]
    queue.clear()
    assert claim(tmp_path) == []
    assert slurm.read_claim(tmp_path, STEP)["run"] == "mine"


def test_a_doomed_job_is_cancelled_and_not_shared(tmp_path: Path, queue: list[str]) -> None:
    record(tmp_path, "7", "8")
    queue += ["8", "9"]
    assert claim(tmp_path, share=False) == []
    assert queue == ["9"]


def test_of_many_launches_at_once_one_submits_and_the_others_share(tmp_path: Path, queue: list[str]) -> None:
    record(tmp_path, "1")  # over
    got: list[list[str]] = []

    def launch(number: int) -> None:
        jobs = claim(tmp_path)
        if not jobs:
            time.sleep(0.2)  # sbatch
            queue.append(f"1{number}")
            record(tmp_path, f"1{number}")
        got.append(jobs)

    threads = [threading.Thread(target=launch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, got)) == [0] + [1] * 7
    assert len({job for jobs in got for job in jobs}) == 1


def test_a_claim_renewed_in_between_stays(tmp_path: Path) -> None:
    path = state_dir(tmp_path, STEP) / "claim.json"
    publish_json(path, {"jobs": ["fresh"]})
    slurm._take_over(path, {"jobs": ["old"]})
    assert slurm.read_claim(tmp_path, STEP) == {"jobs": ["fresh"]}
