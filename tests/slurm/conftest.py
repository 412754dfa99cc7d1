"""`dev_slurm`: a real Slurm on this machine (slurm/devcluster.sh), for every test below this folder."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "slurm" / "devcluster.sh"
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip


class DevSlurm:
    """Slurm's commands, with an environment free of any surrounding job's variables."""

    script = SCRIPT

    def __init__(self) -> None:
        foreign = re.compile(r"(SLURM|SBATCH|SRUN|SALLOC|SQUEUE|SINFO|SACCT|SCONTROL)_")
        self.env = {name: value for name, value in os.environ.items() if not foreign.match(name)}

    def run(
        self, *command: str | Path, check: bool = True, timeout: float = 60, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; with `check`, a non-zero exit fails the test and shows both streams."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.env, text=True, capture_output=True, input=stdin, timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            pytest.fail(f"{done.args} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def verb(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`devcluster.sh WORDS`; the time limit leaves room for installing packages."""
        return self.run(SCRIPT, *words, check=check, timeout=500)

    def sbatch(self, *arguments: str | Path) -> str:
        """Submit; the job id (of an array: its master id)."""
        return self.run("sbatch", "--parsable", *arguments).stdout.strip().split(";")[0]

    def queued(self) -> dict[str, str]:
        """Job id (array elements `ID_INDEX`) -> state, of all that is pending or running."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i|%T").stdout.split()
        return dict(line.split("|") for line in lines)

    def node_of(self, job: str, timeout: float = 30) -> str:
        """The first node of `job`, once it runs."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            state, _, node = self.run("squeue", "-h", "-j", job, "-o", "%T|%B").stdout.strip().partition("|")
            if state == "RUNNING":
                return node
            time.sleep(0.2)
        return pytest.fail(f"job {job} did not start in {timeout} s\n{self.run('squeue').stdout}")

    def history(self, job: str) -> list[tuple[str, str, str]]:
        """(id, state, exit code) of every allocation in accounting, those before a requeue included, oldest first."""
        out = self.run("sacct", "-D", "-X", "-n", "-P", "-o", "JobID,State,ExitCode", "-j", job).stdout
        rows = [line.split("|") for line in out.splitlines()]
        return [(name, state.split()[0], code) for name, state, code in rows]

    def finished(self, job: str, tasks: int = 1, timeout: float = 60) -> dict[str, str]:
        """Wait for all `tasks` elements of `job`, and for accounting, which lags: id -> final state."""
        end = time.monotonic() + timeout
        states: dict[str, str] = {}
        while time.monotonic() < end:
            if not any(name.split("_")[0] == job for name in self.queued()):
                states = {name: state for name, state, _ in self.history(job)}
                if len(states) == tasks and OVER.issuperset(states.values()):
                    return states
            time.sleep(0.3)
        return pytest.fail(f"job {job} not over after {timeout} s: {states}\n{self.run('squeue').stdout}")


@pytest.fixture(scope="session")
def dev_slurm() -> Iterator[DevSlurm]:
    """The running cluster, all nodes up. If it was not running before, it is stopped and the tests' jobs cancelled."""
    if not os.environ.get("CI"):
        if os.geteuid() != 0:
            pytest.skip("the development Slurm needs root")
        if shutil.which("apt-get") is None:
            pytest.skip("the development Slurm needs Debian's packages, and there is no apt-get")
    slurm = DevSlurm()
    was_running = slurm.verb("status", check=False).returncode in (0, 1)
    slurm.verb("start")
    before = set(slurm.queued())
    yield slurm
    if not was_running:
        left = set(slurm.queued()) - before
        if left:
            slurm.run("scancel", *left, check=False)
        slurm.verb("stop")
