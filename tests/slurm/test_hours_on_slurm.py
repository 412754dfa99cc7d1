"""Hours of a step's jobs from a real Slurm's accounting."""

from pathlib import Path
from typing import Any

import pytest

from prox_hpc.publish import replace_json
from prox_hpc.report.collect import Study
from prox_hpc.report.usage import ask_sacct, used


def test_a_steps_hours_are_those_allocated(dev_slurm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SACCT_FORMAT"):
        monkeypatch.delenv(name, raising=False)
    step, other = "tokenize/raw-0123", "refine/web-4567"
    ask = ("--time=5", "--mem=100", f"--output={tmp_path}/%j.log", "--cpus-per-task=2", "--gpus-per-node=1")
    array = dev_slurm.sbatch("--job-name=tokenize:raw", "--array=0-1", *ask, "--wrap", "sleep 2")
    failed = dev_slurm.sbatch("--job-name=tokenize:raw", *ask, "--wrap", "sleep 2; false")
    strange = dev_slurm.sbatch("--job-name=another", *ask, "--wrap", "sleep 2")
    dev_slurm.finished(array, tasks=2)
    for job in (failed, strange):
        dev_slurm.finished(job)
    replace_json(tmp_path / "steps" / step / "claim.json", {"jobs": [array, strange]})
    (tmp_path / "steps" / step / "logs" / failed).mkdir(parents=True)  # of an earlier launch
    replace_json(tmp_path / "steps" / other / "tasks" / "00000.json", {"state": "done", "seconds": 3600.0})
    steps = {step: {"kind": "tokenize", "name": "raw"}, other: {"kind": "refine", "name": "web"}}
    usages, why = used(Study(tmp_path, {}, steps, {}, tmp_path, {"default": {"cpus": 4}}))
    found, clock = usages[step], usages[other]
    assert found is not None
    assert clock is not None
    assert (found.source, clock.source, why) == ("sacct", "wall clock", "")
    assert clock.cpu_hours == 4
    said = dev_slurm.run("sacct", "-X", "-n", "-P", "-o", "ElapsedRaw", "-j", f"{array},{failed}").stdout.split()
    assert len(said) == 3
    assert found.gpu_hours * 3600 == pytest.approx(sum(map(int, said)))
    assert found.cpu_hours == pytest.approx(2 * found.gpu_hours)
    assert found.kwh is None, "these nodes measure no energy"


def test_ids_nobody_knows_are_no_error(dev_slurm: Any) -> None:
    assert ask_sacct(["987654321"]) == ([], "sacct knows none of its jobs")
