"""What is asked of Slurm for a step: read from the sbatch scripts of a dry run, so there need be no Slurm."""

from pathlib import Path

import pytest

from prox_hpc.cluster.slurm import sbatch_scripts
from prox_hpc.config import Cluster
from prox_hpc.study.plan import Plan
from prox_hpc.task import Step

CORPUS = Step("generate", "web", {})


def scripts(store: Path, assignment: str = "leased", tasks: int = 3, **cluster: object) -> dict[str, str]:
    """Part of the refine step ("", "successors", "seal") -> its script."""
    step = Step("refine", "web", {}, {"corpus": CORPUS.address}, tasks=tasks, runtime={"assignment": assignment})
    made = sbatch_scripts(Plan((CORPUS, step)), store, Cluster(backend="slurm", **cluster))  # type: ignore[arg-type]
    return {name.removeprefix(step.address).strip(" ()"): text for name, text in made.items() if name != CORPUS.address}


def line(script: str, option: str) -> str:
    return next(line for line in script.splitlines() if line.startswith(f"#SBATCH --{option}"))


def test_successors_wait_for_a_failure_and_the_seal_for_both(tmp_path: Path) -> None:
    made = scripts(tmp_path, successors=2)
    assert set(made) == {"", "successors", "seal"}
    assert "afterok" in line(made["successors"], "dependency")
    assert "afternotok:<refine/" in line(made["successors"], "dependency")
    assert line(made["successors"], "kill-on-invalid-dep") == "#SBATCH --kill-on-invalid-dep=yes"
    assert line(made["successors"], "array").startswith("#SBATCH --array=0-1%")
    assert line(made["successors"], "job-name").endswith(":successors")
    seal = line(made["seal"], "dependency")
    assert "afterok:<generate/" in seal, "where an input failed there is nothing to seal"
    assert ",afterany:<refine/" in seal
    assert "(successors)" in seal


def test_a_single_task_with_successors_has_a_seal_of_its_own(tmp_path: Path) -> None:
    assert set(scripts(tmp_path, tasks=1)) == {""}
    assert set(scripts(tmp_path, tasks=1, successors=1)) == {"", "successors", "seal"}


def test_nobody_can_succeed_to_a_static_share(tmp_path: Path) -> None:
    assert set(scripts(tmp_path, assignment="static", successors=2)) == {"", "seal"}


@pytest.mark.parametrize("requeue", [True, False])
def test_the_warning_comes_when_it_is_asked_for(tmp_path: Path, requeue: bool) -> None:
    for script in scripts(tmp_path, grace_s=123, requeue=requeue, successors=1).values():
        assert line(script, "signal") == "#SBATCH --signal=USR2@123"
        assert line(script, "requeue" if requeue else "no-requeue")
