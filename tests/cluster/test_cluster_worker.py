"""One task by hand: its products, its seal, its status, its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from prox_hpc.cluster.worker import _distributed_environment, run_seal, run_task
from prox_hpc.study.store import artifact_dir, state_dir, task_states, write_step
from prox_hpc.task import Step

WEB = {"documents": 20, "blocks": 2, "seed": 3, "sites": "test"}


def worker(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prox_hpc.worker", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_single_task_is_sealed_at_once(tmp_path: Path) -> None:
    step = Step("generate", "web", WEB)
    run_task(str(write_step(tmp_path, step)), 0)
    artifact = json.loads((artifact_dir(tmp_path, step) / "artifact.json").read_text())
    assert artifact["address"] == step.address
    assert artifact["summary"]["documents"] == 20
    assert set(artifact["files"]) >= {"blocks/00000.parquet", "blocks/00001.parquet"}
    assert artifact["versions"]["prox_hpc"]
    status = task_states(tmp_path, step)[0]
    assert status["state"] == "done"
    assert " cores of " in status["machine"]


def test_an_array_is_complete_only_after_its_seal_and_the_seal_names_what_is_missing(tmp_path: Path) -> None:
    step = Step("generate", "web", WEB, tasks=2)
    path = str(write_step(tmp_path, step))
    run_task(path, 1)
    with pytest.raises(Exception, match=r"00000|block 0|missing"):
        run_seal(path)
    assert not (artifact_dir(tmp_path, step) / "artifact.json").exists()
    run_task(path, 0)
    run_seal(path)
    assert (artifact_dir(tmp_path, step) / "artifact.json").exists()


def test_a_failing_task_says_so_and_exits_non_zero(tmp_path: Path) -> None:
    step = Step("tokenizer", "bpe", {"vocab_size": 300}, {"corpus": "generate/none-000000000000"})
    done = worker(write_step(tmp_path, step), 0)
    assert done.returncode == 1
    assert "not published" in done.stderr
    state = task_states(tmp_path, step)[0]
    assert state["state"] == "failed"
    assert "not published" in state["error"]


@pytest.mark.parametrize("index", ["5", "-1", "x"])
def test_a_wrong_index_is_the_users_mistake(tmp_path: Path, index: str) -> None:
    step = Step("generate", "web", WEB)
    done = worker("--", write_step(tmp_path, step), index)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert index in done.stderr


def test_a_moved_step_file_is_refused(tmp_path: Path) -> None:
    step = Step("generate", "web", WEB)
    path = write_step(tmp_path, step)
    moved = path.parent.with_name("elsewhere")
    path.parent.rename(moved)
    done = worker(moved / "step.json", 0)
    assert done.returncode == 2
    assert "moved" in done.stderr
    assert not (state_dir(tmp_path, step)).exists()


def test_a_rank_keeps_the_gpus_that_slurm_gave_and_learns_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {
        "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NTASKS": "4",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    }  # fmt: skip
    monkeypatch.setattr("submitit.JobEnvironment.hostnames", ["n1", "n2"])
    # patch.dict also takes away what the function adds
    with patch.dict(os.environ, {**slurm, "CUDA_VISIBLE_DEVICES": "4,6", "MASTER_ADDR": "of a prologue"}):
        _distributed_environment()
        group = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")}
        assert group == {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1"}
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert "WORLD_SIZE" not in os.environ
