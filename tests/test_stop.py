"""Signals that only set fields: which of them ends a step by when, whom they leave alone, and how it was before."""

import os
import signal
import subprocess
import sys
import time

import pytest

from prox_hpc import stop


def send(number: int, told: stop.Stop) -> None:
    """To this process; until it has been heard."""
    heard = told.reason
    os.kill(os.getpid(), number)
    end = time.monotonic() + 60
    while told.reason == heard or not told.requested:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_warning_leaves_most_of_the_grace_time() -> None:
    with stop.install(grace_s=60) as told:
        assert (told.requested, told.deadline) == (False, None)
        send(signal.SIGUSR2, told)
        assert told.requested
        assert told.warned
        assert told.deadline is not None
        assert 30 < told.deadline - time.monotonic() < 60
        assert "SIGUSR2" in told.reason


def test_sigterm_means_at_once_even_after_a_warning() -> None:
    with stop.install(grace_s=3600) as told:
        send(signal.SIGTERM, told)
        assert told.requested
        assert not told.warned
        assert told.deadline is not None
        assert told.deadline <= time.monotonic()
    with stop.install(grace_s=3600) as told:
        send(signal.SIGUSR2, told)
        send(signal.SIGTERM, told)
        assert told.warned, "Slurm does not requeue what ran out of time: the task has to"
        assert told.deadline is not None
        assert told.deadline <= time.monotonic()
        assert "SIGTERM" in told.reason


def test_children_outlive_the_warning_and_not_the_end() -> None:
    with stop.install(60):
        child = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGUSR2)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(1)
    child.terminate()
    assert child.wait() == -signal.SIGTERM
    child.communicate()


def test_all_is_as_before() -> None:
    met: list[int] = []
    before = signal.signal(stop.WARNING, lambda number, frame: met.append(number))
    try:
        with stop.install(1) as told:
            send(stop.WARNING, told)
        assert not met
        os.kill(os.getpid(), stop.WARNING)
        assert met == [stop.WARNING]
        assert signal.getsignal(stop.END) == signal.SIG_DFL
    finally:
        signal.signal(stop.WARNING, before)
