"""Shared by all tests: the command line as a user types it, a browser, and studies that several files look at."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.cluster.worker import manifest
from prox_hpc.corpus.read import Document, open_source
from prox_hpc.corpus.write import block_path, publish_counts, write_block
from prox_hpc.publish import publish_json, replace_json
from prox_hpc.refine import task as refine
from prox_hpc.refine.blocks import Ready
from prox_hpc.refine.blocks import write_block as refine_block
from prox_hpc.refine.records import Execution, Written
from prox_hpc.task import Step, Task

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two processes with two threads each on two cores wait for each other at every barrier.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

LONG = {
    "tests/slurm/": "slurm",
    **dict.fromkeys(("tests/test_study_local", "tests/test_study_files", "tests/refine/test_refine_verdicts"), "tiny"),
}
"""Files, by how their path begins, that go to one process together: their common set-up takes minutes."""

MakeRun = Callable[..., Path]
Command = Callable[..., subprocess.CompletedProcess[str]]


def group_of(nodeid: str) -> str:
    """Tests of one group run in one process: those of a file, for its fixtures, or of the files that LONG names."""
    file = nodeid.partition("::")[0]
    return next((group for path, group in LONG.items() if file.startswith(path)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest groups begin, each in a process of its own, so that no process ends long after the other."""
    items.sort(key=lambda item: group_of(item.nodeid) in LONG.values(), reverse=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `pytest -n 2`."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


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
def command() -> Command:
    """`python -m MODULE ARGUMENTS`."""
    return run_module


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """small_disk("2m") -> the root of a filesystem of that size, gone after the test."""
    if os.getuid() != 0 and not os.environ.get("CI"):
        pytest.skip("a small disk of one's own needs root (mount); CI is root")
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        disk = tmp_path / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
        mounted.append(disk)
        return disk

    yield mount
    for disk in mounted:
        subprocess.run(["umount", disk], check=True)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# Not for the session: while Playwright's loop is there, nothing else in this process can run one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing; apt-get install chromium")
        pytest.skip("chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def run_maker() -> Callable[[Path], MakeRun]:
    """run_maker(folder) -> `make_run`, which makes its runs and their store in that folder."""
    return _maker


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """make_run(blocks of [(document, what was written for it)]) -> folder of a run with one finished refine step.

    The programs are written by hand, so that what comes of them is known; all else is as a refine task leaves it.
    """
    return _maker(tmp_path)


def _maker(folder: Path) -> MakeRun:
    def make(
        *blocks: list[tuple[Document, Written]], name: str = "web-tiny", published: bool = True, **config: Any
    ) -> Path:
        store = folder / "store"
        corpus = Step("generate", f"{name}-corpus", {"documents": sum(map(len, blocks))})
        source = store / "artifacts" / corpus.address
        for index, block in enumerate(blocks):
            documents = [document for document, _ in block]
            gold = any(document.gold_drop is not None for document in documents)
            publish_counts(source, index, write_block(block_path(source, index), documents, gold=gold))
        publish_json(source / "artifact.json", {"summary": {}})
        config = {"refiner": {}, "doc_stage": True, "chunk_stage": True} | config
        step = Step("refine", name, config, {"corpus": corpus.address})
        task = Task(step, 0, store)
        if not (task.out / "blocks").exists():  # else the very same run was made before
            _refine(task, blocks, published)
        study = folder / "runs" / name
        steps = {one.address: one.to_json() for one in (corpus, step)}
        replace_json(store / "steps" / step.address / "step.json", step.to_json())
        replace_json(study / "study.json", {"config": {"store": str(store)}, "steps": steps})
        return study

    return make


def _refine(task: Task, blocks: tuple[list[tuple[Document, Written]], ...], published: bool) -> None:
    """What a refine task does once it has its programs."""
    execution = Execution.of(task.config)
    note = {"failed": {}, "seconds": 1.0, "server_version": "none", "parameters": {}}
    source = open_source(task)
    for block, made in zip(source.blocks, blocks, strict=True):
        refine_block(task.out, block, (Ready(*one) for one in made), execution, lambda: note)
    if published:
        publish_json(task.out / "artifact.json", manifest(task.step, task.out, refine.seal(task)))
