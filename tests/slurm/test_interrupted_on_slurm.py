"""A refine step whose tasks Slurm interrupts in every way it has: its blocks are all there, once, and the seal is good.

All cases run at the same time on one cluster, with the same documents, so what they published must be the same too. The
servers are tools/echo_server.py: slow on purpose, and their answers depend on nothing but the prompts.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prox_hpc.cluster import slurm
from prox_hpc.config import Cluster, Corpus, Resources
from prox_hpc.corpus.files import plan_files
from prox_hpc.study.plan import Plan
from prox_hpc.study.status import row
from prox_hpc.study.store import artifact_dir, state_dir, task_states
from prox_hpc.task import Step

BLOCKS, DOCUMENTS = 12, 8
ECHO = Path(__file__).resolve().parents[2] / "tools" / "echo_server.py"
LINES = ["Home | About | Contact", "The quick brown fox jumps over the lazy dog.", "Share this page", "Cookies"]


@dataclass
class Case:
    """A queued refine step. before: what it had published when it was interrupted (block -> inode of its manifest)."""

    store: Path
    step: Step
    jobs: list[str]
    before: dict[str, int]

    @property
    def out(self) -> Path:
        return artifact_dir(self.store, self.step) / "blocks"

    def published(self) -> dict[str, int]:
        return {path.stem: path.stat().st_ino for path in self.out.glob("[0-9]*.json")}

    def at_work(self, index: int = 0) -> bool:
        """Whether a task has written documents."""
        return bool(task_states(self.store, self.step)[index].get("done"))

    def told(self, index: int) -> bool:
        """Whether a task has been told to end early, and has."""
        return bool(task_states(self.store, self.step)[index].get("state") == "interrupted")


def until(condition: Callable[[], bool], what: str, dev_slurm: Any, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds} s\n{dev_slurm.run('squeue', '-r').stdout}")
        time.sleep(0.3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The configuration of a refine step: small pages and a tokenizer; the echo needs no weights."""
    from transformers import LlamaConfig

    from prox_hpc.refiner.tokenizer import save, train

    folder = tmp_path_factory.mktemp("interrupted")
    pages, model = folder / "pages", folder / "model"
    pages.mkdir()
    model.mkdir()
    for block in range(BLOCKS):
        texts = [[f"{LINES[(n + i) % 4]} {block} {n * i}" for i in range(8)] for n in range(DOCUMENTS)]
        records = [{"id": f"{block}-{n}", "text": "\n".join(text)} for n, text in enumerate(texts)]
        (pages / f"{block:02d}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    save(train(LINES * 9, 1024), model)
    LlamaConfig(vocab_size=1024, max_position_embeddings=512, bos_token_id=0, eos_token_id=0).save_pretrained(model)
    refiner = {"prompt": "tags", "max_chunk_tokens": 300, "max_doc_tokens": 300, "max_new_tokens": 24}
    refiner |= {"doc_model": str(model), "chunk_model": str(model)}
    source = plan_files(Corpus(name="pages", kind="files", path=str(pages)))
    return {"refiner": refiner, "doc_stage": True, "chunk_stage": True, "program_all": True, "source": source}


@pytest.fixture(scope="module")
def queue(corpus: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """queue(name, tasks, seconds a block takes, ...) -> a case that is in the queue."""

    def put(name: str, tasks: int, block_s: float, mem_gb: float = 0.5, time_min: int = 10, **given: Any) -> Case:
        # A document takes two answers, one after the other; four documents are at work at a time.
        command = [sys.executable, str(ECHO), "--delay", str(block_s / (2 * DOCUMENTS / 4))]
        serve = {"command": command, "max_total_tokens": 8192, "requests_in_flight": 4, "batch_requests": 1}
        resources = {"default": Resources(cpus=1, mem_gb=mem_gb, time_min=time_min)}
        here = Cluster(backend="slurm", resources=resources, **({"partition": "main", "grace_s": 60} | given))
        runtime = {
            "serve": serve | {"pin_cores": False},
            "assignment": "leased",
            "lease_s": 20,
            "grace_s": here.grace_s,
        }
        store = tmp_path_factory.mktemp(name)
        step = Step("refine", name, corpus, tasks=tasks, runtime=runtime)
        slurm.submit(Plan((step,)), store, here, store / "run")
        return Case(store, step, slurm.read_claim(store, step)["jobs"], {})

    return put


@pytest.fixture(scope="module")
def cases(dev_slurm: Any, queue: Callable[..., Case]) -> Iterator[dict[str, Case]]:
    """All of them, interrupted and over."""
    made = {
        # Slurm looks every 30 s for tasks to be warned: with 10 s of grace this one is, 20 to 50 s after its start. It
        # comes first and has the cores first, or all of that would be spent on starting.
        "limited": queue("limited", 1, 4, time_min=1, grace_s=10, setup=["renice -n -5 $$"], sbatch={"nodelist": "n1"}),
        # three tasks on three nodes, since two do not fit into one node's memory
        "lost": queue("lost", 3, 6, mem_gb=3.5, sbatch={"exclude": "n4"}),
        "preempted": queue("preempted", 1, 4, grace_s=10, partition="preempt", sbatch={"nodelist": "n4"}),
        "forbidden": queue("forbidden", 1, 4, grace_s=10, requeue=False, successors=1, sbatch={"nodelist": "n1"}),
    }
    try:
        interrupt(dev_slurm, made)
        jobs = {job for case in made.values() for job in case.jobs}
        until(lambda: not jobs & {name.split("_")[0] for name in dev_slurm.queued()}, "the end", dev_slurm)
        yield made
    finally:
        dev_slurm.run("scancel", *(job for case in made.values() for job in case.jobs), check=False)
        for node in ("n2", "n3"):
            dev_slurm.verb("revive-node", node)
            dev_slurm.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)


def interrupt(dev_slurm: Any, made: dict[str, Case]) -> None:
    """Each task in its way, once it is at work; the one with a time limit is given more time for its second run."""
    lost = made["lost"].jobs[0]
    on = {dev_slurm.node_of(f"{lost}_{index}"): index for index in range(3)}
    assert sorted(on) == ["n1", "n2", "n3"]
    limited = made["limited"]
    node = ("scontrol", "update", "nodename=n2")
    waiting: list[tuple[Case, int, list[tuple[str, ...]]]] = [
        (limited, 0, [("scontrol", "update", f"jobid={limited.jobs[0]}", "timelimit=10")]),
        (made["lost"], on["n1"], [("scontrol", "requeue", f"{lost}_{on['n1']}")]),
        # It comes back at once, and must not get its job back before the job's old processes are gone.
        (made["lost"], on["n2"], [(*node, f"state={state}", "reason=test") for state in ("drain", "down")]),
        (made["lost"], on["n3"], [(str(dev_slurm.script), verb, "n3") for verb in ("kill-node", "revive-node")]),
        (made["preempted"], 0, [("sbatch", "-w", "n4", "-c4", "-t2", "-o", "/dev/null", "--wrap", "sleep 1")]),
        # as Slurm itself does before a time limit
        (made["forbidden"], 0, [("scancel", "--signal=USR2", made["forbidden"].jobs[0])]),
    ]
    raw = dev_slurm.run("squeue", "-h", "-j", f"{lost}_{on['n2']}", "-o", "%A").stdout.strip()
    steps_on_n2 = f"slurmstepd: .{raw}[.]"

    def next_ready() -> bool:
        for case, index, commands in waiting:
            if case.told(0) if case is limited else case.at_work(index):
                case.before |= case.published()
                for command in commands:
                    dev_slurm.run(*command)
                waiting.remove((case, index, commands))
                return True
        return False

    while waiting:
        until(next_ready, f"{len(waiting)} tasks at work", dev_slurm)
    until(lambda: not dev_slurm.run("pgrep", "-f", steps_on_n2, check=False).stdout, "the end of n2's job", dev_slurm)
    dev_slurm.run(*node, "state=resume")


def states(dev_slurm: Any, job: str) -> list[tuple[str, str]]:
    """(state, exit code) of a job's runs, oldest first."""
    return [(state, code) for _, state, code in dev_slurm.history(job)]


@pytest.mark.parametrize("name", ["lost", "preempted", "forbidden", "limited"])
def test_every_block_is_there_once_and_none_was_done_again(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    assert row(case.store, case.step, {}, case.jobs).state == "done", log(case)
    summary = json.loads((case.out.parent / "artifact.json").read_text())["summary"]
    assert summary["documents"]["in"] == BLOCKS * DOCUMENTS
    identities = [
        identity
        for path in sorted(case.out.glob("*.programs.parquet"))
        for identity in pq.read_table(path, columns=["id"])["id"].to_pylist()
    ]
    assert sorted(identities) == sorted(f"{block}-{n}" for block in range(BLOCKS) for n in range(DOCUMENTS))
    assert case.before.items() <= case.published().items()
    assert not list(case.out.glob(".*")), "drafts were left behind"
    if name != "lost":  # a task killed between publishing a block and giving its lease back leaves that behind
        assert not list((state_dir(case.store, case.step) / "leases").glob("[0-9]*"))


@pytest.mark.parametrize("suffix", ["refined.parquet", "json"])
def test_the_cases_published_the_same(cases: dict[str, Case], suffix: str) -> None:
    def content(path: Path) -> Any:
        if suffix == "json":
            manifest = json.loads(path.read_text())
            return {key: manifest[key] for key in ("in", "kept", "dropped", "failed", "digest_in", "digest_out")}
        return path.read_bytes()

    for block in range(BLOCKS):
        found = [content(case.out / f"{block:05d}.{suffix}") for case in cases.values()]
        assert all(one == found[0] for one in found), f"block {block}"


def test_what_slurm_takes_away_it_starts_again(cases: dict[str, Case], dev_slurm: Any) -> None:
    array, seal = cases["lost"].jobs
    assert dev_slurm.finished(seal) == {seal: "COMPLETED"}
    ends = [state for state, _ in states(dev_slurm, array)]
    assert ends.count("NODE_FAIL") == 2
    assert ends.count("REQUEUED") == 1
    assert ends.count("COMPLETED") == 3


def test_a_preempted_task_puts_itself_back(cases: dict[str, Case], dev_slurm: Any) -> None:
    (job,) = cases["preempted"].jobs
    assert dev_slurm.finished(job) == {job: "COMPLETED"}
    assert len(states(dev_slurm, job)) >= 2
    assert "interrupted by SIGUSR2" in log(cases["preempted"])


def test_at_its_time_limit_a_task_puts_itself_back(cases: dict[str, Case], dev_slurm: Any) -> None:
    (job,) = cases["limited"].jobs
    assert dev_slurm.finished(job) == {job: "COMPLETED"}
    ends = states(dev_slurm, job)
    assert len(ends) >= 2
    assert "TIMEOUT" not in dict(ends)
    assert "interrupted by SIGUSR2" in log(cases["limited"])


def test_where_requeueing_is_forbidden_a_successor_does_the_rest(cases: dict[str, Case], dev_slurm: Any) -> None:
    case = cases["forbidden"]
    first, successor, seal = case.jobs
    assert states(dev_slurm, first) == [("FAILED", "75:0")]
    assert states(dev_slurm, successor) == [("COMPLETED", "0:0")]
    assert dev_slurm.finished(seal) == {seal: "COMPLETED"}
    assert [state["state"] for state in task_states(case.store, case.step)] == ["interrupted", "done"]
    assert row(case.store, case.step, {}, []).helpers == 1


def test_the_servers_outlive_the_warning(cases: dict[str, Case]) -> None:
    """Slurm sends it to every process of a job; a real server takes minutes to start again."""
    case = cases["forbidden"]
    lines = (state_dir(case.store, case.step) / "telemetry" / "00000.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["pool"]["restarts"] == 0


def log(case: Case) -> str:
    return "".join(path.read_text() for path in (state_dir(case.store, case.step) / "logs").rglob("*_log.out"))
