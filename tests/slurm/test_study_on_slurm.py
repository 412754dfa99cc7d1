"""The tiny study on a real Slurm: launch returns, jobs do the work, failures are honest, sweep points share."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.study.store import artifact_dir, load_run
from tests.conftest import Command, run_module

SLURM = ("cluster=slurm_dev", "scale=tiny", "corpus.tasks=2")
# A study without refiner and training steps of its own to wait for: seconds instead of minutes.
SMALL = (
    *SLURM,
    "arm=[raw]",
    "seeds=[1]",
    "trainee.training.tokens=8192",
    "trainee.training.checkpoints=1",
    "trainee.training.warmup_steps=0",
)


def status(run: Path) -> list[dict[str, Any]]:
    done = run_module("prox_hpc.status", run, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def wait(run: Path, timeout: float) -> dict[str, str]:
    """Until every step is over; -> address -> state."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        states = {row["address"]: row["state"] for row in status(run)}
        if set(states.values()) <= {"done", "failed", "cancelled"}:
            return states
        time.sleep(2)
    return pytest.fail(f"not over after {timeout} s: {states}")


def test_an_experiment_runs_as_a_queue_of_jobs(dev_slurm: Any, launch: Command, tmp_path: Path) -> None:
    """The paper's Figure 8 as shipped, at the smallest scale: its arms, and its way of charging the refining."""
    done = launch("experiment=flops", *SLURM, f"output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "tiny"
    assert not (run / "report" / "report.json").exists(), "launch waited for the study"
    assert str(run) in done.stdout
    states = wait(run, 900)
    assert set(states.values()) == {"done"}, run_module("prox_hpc.status", run).stdout
    report = json.loads((run / "report" / "report.json").read_text())
    assert not report["missing"]
    config, steps = load_run(run)
    assert list(config["arm"]) == ["raw", "prox_dc"]
    assert report["charge"]["prorate"] == config["report"]["prorate"] == "run"
    refine = next(step for step in steps if step.kind == "refine")
    summary = json.loads((artifact_dir(Path(config["store"]), refine) / "artifact.json").read_text())["summary"]
    assert refine.tasks == 2
    assert summary["server_version"] == "0.5.23"
    documents = summary["documents"]
    assert documents["in"] == documents["kept"] + documents["dropped"] + documents["failed"]
    jobs = {job for row in status(run) for job in row["jobs"]}
    assert len(jobs) >= len(steps)
    assert {state for job in jobs for state in dev_slurm.finished(job, tasks=len(dev_slurm.history(job))).values()} == {
        "COMPLETED"
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where studies find the tokens of their corpus, once one of them has made them."""
    return tmp_path_factory.mktemp("store")


def test_a_failed_step_stops_what_depends_on_it_and_the_next_launch_does_only_what_is_missing(
    dev_slurm: Any, launch: Command, tmp_path: Path, store: Path
) -> None:
    diverges = ("trainee.training.learning_rate=1e30", "trainee.training.min_learning_rate=1e30", f"store={store}")
    done = launch(*SMALL, *diverges, f"output={tmp_path}")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "tiny"
    states = wait(run, 300)
    of = {address.split("/")[0]: state for address, state in states.items()}
    assert of["tokenize"] == "done"
    assert of["pretrain"] == "failed"
    assert of["evaluate"] == "cancelled"
    shown = run_module("prox_hpc.status", run)
    assert shown.returncode == 1
    assert "diverged" in shown.stdout
    assert any(
        "pretrain" in json.dumps(item) for item in json.loads((run / "report" / "report.json").read_text())["missing"]
    )
    again = launch(*SMALL, *diverges, f"output={tmp_path}")
    assert "3 steps queued" in again.stdout, "pretrain, evaluate and the report are what is missing"
    wait(run, 300)


def test_sweep_points_share_what_they_have_in_common(dev_slurm: Any, launch: Command, tmp_path: Path) -> None:
    done = launch("-m", *SMALL, "trainee.training.learning_rate=1e-3,3e-3", f"output={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    points = sorted((tmp_path / "runs" / "tiny").iterdir())
    assert [point.name for point in points] == [
        "trainee.training.learning_rate=0.001",
        "trainee.training.learning_rate=0.003",
    ]
    assert (tmp_path / "runs" / "multirun.yaml").exists(), "Hydra's own record went elsewhere"
    assert not (points[1] / "report").exists(), "multirun waited for its studies"
    for point in points:
        assert set(wait(point, 300).values()) == {"done"}
    generate = [next(row for row in status(point) if row["address"].startswith("generate/web")) for point in points]
    assert generate[0]["jobs"] == generate[1]["jobs"], "the common corpus was generated twice"


def test_checkpoints_are_evaluated_while_training_runs_and_cancel_ends_all_jobs_of_the_run(
    dev_slurm: Any, launch: Command, tmp_path: Path, store: Path
) -> None:
    often = ("trainee.training.tokens=8192000", "trainee.training.checkpoints=200", "evaluation.array=200")
    launch(*SMALL, *often, "cluster.array_parallelism=1", f"output={tmp_path}", f"store={store}")
    run = tmp_path / "runs" / "tiny"
    end = time.monotonic() + 300
    while True:
        row = {row["address"].split("/")[0]: row for row in status(run)}
        if row["evaluate"]["tasks_done"]:
            break
        assert row["pretrain"]["state"] in ("waiting", "queued", "running"), row["pretrain"]
        assert time.monotonic() < end, dev_slurm.run("squeue").stdout
        time.sleep(1)
    assert row["pretrain"]["state"] == "running"
    scored = store / "steps" / row["evaluate"]["address"] / "checkpoints"
    assert (scored / "step-000020.json").exists()
    done = run_module("prox_hpc.cancel", run)
    assert done.returncode == 0, done.stderr
    assert "cancelled" in done.stdout
    states = wait(run, 120)
    assert "cancelled" in states.values()
    mine = {job for row in status(run) for job in row["jobs"]}
    left = {job: state for job, state in dev_slurm.queued().items() if job.split("_")[0] in mine}
    assert set(left.values()) <= {"COMPLETING"}
