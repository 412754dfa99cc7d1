"""Shared by all tests: the command line as a user types it, and one tiny study that several files look at."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


def run_module(
    module: str, *arguments: object, timeout: float = 900, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS` from a folder that is not the checkout's."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd="/",
        env={**os.environ, "COLUMNS": "200", **environment},
    )


@pytest.fixture(scope="session")
def launch() -> Command:
    """`python -m prox_hpc.launch ...`."""
    return lambda *arguments, **environment: run_module("prox_hpc.launch", *arguments, **environment)


@pytest.fixture(scope="session")
def tiny_study(launch: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a whole `scale=tiny` study on this machine (about four minutes, once per test session)."""
    output = tmp_path_factory.mktemp("tiny")
    done = launch("scale=tiny", f"output={output}")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (output / "launch.log").write_text(done.stdout)
    return output / "runs" / "tiny"
