"""Leases between real processes: taken once, kept while renewed, free again when their holder is gone or silent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prox_hpc.leases import Leases, this_owner

SECONDS = 2.0
# Takes the names it reads and answers with those it got; ends when its input does.
HOLDER = """
import sys
from pathlib import Path
from prox_hpc.leases import Leases
with Leases(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])) as leases:
    for line in sys.stdin:
        print(*(name for name in line.split() if leases.take(name)), flush=True)
"""
Holder = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    """holder(owner) -> a process that takes leases in `tmp_path`."""
    started: list[subprocess.Popen[str]] = []

    def start(owner: str, seconds: float = SECONDS) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(tmp_path), owner, str(seconds)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], *names: str) -> list[str]:
    tell(process, *names)
    return answer(process)


def tell(process: subprocess.Popen[str], *names: str) -> None:
    assert process.stdin is not None
    process.stdin.write(" ".join(names) + "\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_one_of_two_gets_it_and_the_other_after_it_was_given_back(tmp_path: Path) -> None:
    with Leases(tmp_path, "a", 60) as first, Leases(tmp_path, "b", 60) as second:
        assert first.take("x")
        assert first.take("x"), "it is ours already"
        assert not second.take("x")
        second.release("x")
        assert not second.take("x"), "what is another's is not ours to give back"
        first.release("x")
        assert second.take("x")
        assert json.loads((tmp_path / "x.json").read_text())["owner"] == "b"
    assert not list(tmp_path.iterdir()), "something was left behind"


@pytest.mark.parametrize("free", ["new", "of the dead", "expired"])
def test_two_processes_racing_for_names_get_each_once(tmp_path: Path, holder: Holder, free: str) -> None:
    names = [f"{number:03d}" for number in range(200)]
    if free != "new":
        dead = holder("dead", 3600)
        assert ask(dead, *names) == names
        dead.kill()
        dead.wait()
    if free == "expired":
        for name in names:  # as if another machine had them, long ago
            found = json.loads((tmp_path / f"{name}.json").read_text())
            (tmp_path / f"{name}.json").write_text(json.dumps(found | {"machine": "another"}))
            os.utime(tmp_path / f"{name}.json", (1, 1))
    racing = [holder(owner, 3600) for owner in "ab"]
    for process in racing:
        assert ask(process) == []  # it is ready
    for process in racing:
        tell(process, *names)
    got = [answer(process) for process in racing]
    assert sorted(got[0] + got[1]) == names
    assert {json.loads((tmp_path / f"{name}.json").read_text())["owner"] for name in got[0]} <= {"a"}


def test_a_lease_outlives_its_term_while_its_holder_lives(tmp_path: Path, holder: Holder) -> None:
    assert ask(holder("a"), "x") == ["x"]
    end = time.monotonic() + 3 * SECONDS
    with Leases(tmp_path, "b", SECONDS) as other:
        while time.monotonic() < end:
            assert not other.take("x")
            time.sleep(0.05)


def test_a_killed_process_holds_nothing(tmp_path: Path, holder: Holder) -> None:
    process = holder("a", 3600)
    assert ask(process, "x") == ["x"]
    with Leases(tmp_path, "b", 3600) as other:
        assert not other.take("x")
        process.send_signal(signal.SIGKILL)
        assert eventually(lambda: other.take("x"))  # before anybody has waited for it: a zombie is dead


def test_another_process_with_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    with Leases(tmp_path, "a", 3600) as first, Leases(tmp_path, "b", 3600) as other:
        assert first.take("x")
        found = json.loads((tmp_path / "x.json").read_text())
        (tmp_path / "x.json").write_text(json.dumps(found | {"started": found["started"] - 1}))
        assert other.take("x")


def test_a_silent_holder_loses_it_and_leaves_the_next_one_alone(tmp_path: Path, holder: Holder) -> None:
    process = holder("a")
    assert ask(process, "x", "y") == ["x", "y"]
    process.send_signal(signal.SIGSTOP)
    with Leases(tmp_path, "b", SECONDS) as other:
        assert eventually(lambda: other.take("x"))
        process.send_signal(signal.SIGCONT)
        assert process.stderr is not None
        assert "its holder is b now" in process.stderr.readline()
        assert ask(process, "x", "y") == ["y"], "it took back what is another's, or lost what nobody took"
        process.communicate()
        assert process.returncode == 0
        assert json.loads((tmp_path / "x.json").read_text())["owner"] == "b"
        assert not (tmp_path / "y.json").exists()


def test_a_requeued_task_has_its_own_leases_back_at_once(tmp_path: Path) -> None:
    for name in "xyz":
        lease = {"owner": "slurm 7_3 task 3", "token": name, "machine": "another", "pid": 1, "started": 1}
        (tmp_path / f"{name}.json").write_text(json.dumps(lease))
    with Leases(tmp_path, "slurm 7_3 task 3", 3600) as back, Leases(tmp_path, "slurm 7_4 task 4", 3600) as other:
        assert not other.take("x")
        assert back.take("x")
        os.utime(tmp_path / "y.json", (1, 1))
        assert other.take("y"), "no sign of life for years"


def test_a_damaged_lease_only_expires(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with Leases(tmp_path, "a", 3600) as leases:
        assert not leases.take("x")
        os.utime(tmp_path / "x.json", (1, 1))
        assert leases.take("x")


def test_the_owner_is_the_slurm_job_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    assert str(os.getpid()) in this_owner(3)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert this_owner(3) == "slurm 12 task 3"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "9")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert this_owner(3) == "slurm 9_2 task 3"
