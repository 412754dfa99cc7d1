"""Training as a job of two nodes, which Slurm takes away in its midst: it goes on as if nothing had happened."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from prox_hpc.cluster import slurm
from prox_hpc.cluster.worker import run_task
from prox_hpc.config import Cluster, Resources
from prox_hpc.study.plan import Plan
from prox_hpc.study.store import artifact_dir, task_states, write_step
from prox_hpc.task import Step

WEB = Step("generate", "web", {"documents": 60, "blocks": 1, "seed": 3, "sites": "test"})
BPE = Step("tokenizer", "bpe", {"vocab_size": 1024}, {"corpus": WEB.address})
TOKENS = Step("tokenize", "raw", {"tokenizer": None}, {"corpus": WEB.address, "tokenizer": BPE.address})
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 1024}
TRAINING = {"tokens": 400 * 512, "context": 64, "batch_tokens": 512, "warmup_steps": 1, "checkpoints": 2}
RUN = Step(
    "pretrain",
    "arm",
    {"shape": SHAPE, "training": TRAINING, "seed": 3, "model": None, "tokenizer": None},
    {"tokens": TOKENS.address, "tokenizer": BPE.address},
    processes=2,
    runtime={"device": "cpu", "training": {"micro_batch": 4, "save_steps": 10}},
)
HERE = Cluster(
    backend="slurm",
    partition="main",
    environment={"OMP_NUM_THREADS": "1"},
    resources={"default": Resources(nodes=2, cpus=1, mem_gb=1, time_min=20)},
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two with the same tokens."""
    first = tmp_path_factory.mktemp("stores") / "whole"
    for step in (WEB, BPE, TOKENS):
        run_task(str(write_step(first, step)), 0)
    return first, Path(shutil.copytree(first, first.with_name("requeued")))


def until(condition: Any, what: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def test_a_requeued_job_of_two_nodes_trains_as_an_undisturbed_one(dev_slurm: Any, stores: tuple[Path, Path]) -> None:
    jobs = []
    for store in stores:
        slurm.submit(Plan((WEB, BPE, TOKENS, RUN)), store, HERE, store / "run")
        jobs.append(slurm.read_claim(store, RUN)["jobs"][0])
    try:
        until(lambda: task_states(stores[1], RUN)[0].get("done", 0) >= 40, "the first 40 steps")
        dev_slurm.run("scontrol", "requeue", jobs[1])
        for store, job in zip(stores, jobs, strict=True):
            assert dev_slurm.finished(job, timeout=400) == {job: "COMPLETED"}, _logs(store)
    finally:
        dev_slurm.run("scancel", *jobs, check=False)
    assert [state for _, state, _ in dev_slurm.history(jobs[1])] == ["REQUEUED", "COMPLETED"]
    assert dev_slurm.run("sacct", "-X", "-n", "-P", "-o", "NNodes", "-j", jobs[1]).stdout.split()[-1] == "2"
    assert task_states(stores[1], RUN)[0]["begun_at"] > 30  # where its second attempt began

    whole, requeued = (artifact_dir(store, RUN) for store in stores)
    assert json.loads((requeued / "run.json").read_text())["world_size"] == 2
    lines = [
        [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()] for out in (whole, requeued)
    ]
    same = [[(line["step"], line["loss"], line["grad_norm"]) for line in found] for found in lines]
    assert len(same[0]) == 400
    assert same[1] == same[0]
    first, second = (load_file(out / "checkpoints/step-000400/model.safetensors") for out in (whole, requeued))
    assert all((first[name] == second[name]).all() for name in first)


def _logs(store: Path) -> str:
    return "".join(path.read_text() for path in (store / "steps" / RUN.address / "logs").rglob("*_log.*"))
