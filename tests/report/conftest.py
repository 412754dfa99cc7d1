"""Stores of a study as its steps would leave them, with scores of a known answer and no model trained.

The plan is the shipped quickstart's. Every arm's true score rises with log FLOPs; `SHIFT` says by how many doublings
of FLOPs an arm is ahead of raw, so the true saving to raw's final score is 2 ** SHIFT.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore

from prox_hpc.config import Config
from prox_hpc.launch import conf_dir, plan, typed
from prox_hpc.publish import publish_json, replace_json
from prox_hpc.report import task as report_task
from prox_hpc.study.store import open_run
from prox_hpc.task import Step, Task

SHIFT = {"raw": 0.0, "gopher": 0.3, "prox_c": 0.4, "prox_dc": 1.0, "gold": 1.6}
PARAMETERS = {"total": 1_320_000, "non_embedding": 800_000, "minus_one_embedding": 1_060_000}
MODEL = PARAMETERS | {"layers": 4, "hidden": 128, "context": 256}
"""As `prox_hpc.refine.tokens.counted` records a refiner."""
STEPS, STEP_TOKENS = (12, 24, 36, 48), 8192
ITEMS, TEXTS = 400, 60
DOCUMENTS = 2000
KEPT = {"raw": 2000, "gopher": 1630, "prox_d": 1120, "prox_c": 1988, "prox_dc": 1105, "gold": 1090}
NEEDED = {
    "prox_d": {"doc_prefill": 650_000, "chunk_prefill": 0, "chunk_decode": 0},
    "prox_c": {"doc_prefill": 0, "chunk_prefill": 420_000, "chunk_decode": 21_000},
    "prox_dc": {"doc_prefill": 650_000, "chunk_prefill": 420_000, "chunk_decode": 21_000},
}
"""Tokens of the passes that the arms need; of `prox_dc` those of a study without `prox_c`."""
VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "lm_eval": "0.4.13"}
NODE = "8 NVIDIA H100 80GB HBM3 (driver 570.86.15), 64 cores of AMD EPYC 9454"

Fabricate = Callable[..., Task]


@pytest.fixture
def fabricate(tmp_path: Path) -> Fabricate:
    """fabricate(shift=..., skip=predicate on steps, overrides=[...]) -> the report task of that store."""
    return fabricator(tmp_path)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(report folder, report.json's content) of a whole study with the savings of `SHIFT`; look, don't touch."""
    return made(fabricator(tmp_path_factory.mktemp("whole"))())


def made(task: Task) -> tuple[Path, dict[str, Any]]:
    report_task.run(task)
    folder = Path(task.step.runtime["run_dir"]) / "report"
    return folder, json.loads((folder / "report.json").read_text())


@pytest.fixture
def make_report() -> Callable[[Task], tuple[Path, dict[str, Any]]]:
    """Run the report step: -> (its folder, report.json's content)."""
    return made


@pytest.fixture
def unseal() -> Callable[[Task, str, int], None]:
    """unseal(report task, role of an evaluation, checkpoints scored): make that evaluation one that still runs."""
    return unsealed


def unsealed(task: Task, role: str, scored: int) -> None:
    """Leave the evaluation in `role` as it is while it runs, with its first `scored` checkpoints remembered."""
    folder, state = task.input(role), task.store / "steps" / task.step.inputs[role]
    content = json.loads((folder / "scores.json").read_text())
    items = pq.read_table(folder / "items.parquet")
    for entry in content["checkpoints"][:scored]:
        own = items.filter(pc.field("step") == entry["step"])
        columns = {
            name: own.filter(pc.field("task") == name).select(["item", "correct_norm", "bits", "bytes"]).to_pydict()
            for name in entry["scores"]
        }
        for column in columns.values():
            column["correct"] = column["correct_norm"]
        about = {"items": columns, "groups": {}, "skipped": {"boolq": "no data"}, "lm_eval": "0.4.13"}
        publish_json(state / "checkpoints" / f"step-{entry['step']:06d}.json", entry | about)
    shutil.rmtree(folder)


def fabricator(folder: Path) -> Fabricate:
    def make(
        shift: dict[str, float] | None = None,
        skip: Callable[[Step], bool] = lambda step: False,
        overrides: tuple[str, ...] = (),
    ) -> Task:
        ConfigStore.instance().store(name="base_config", node=Config)
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            config = typed(compose("config", [f"output={folder}", *overrides]))
        study = plan(config)
        steps = list(study)
        report = steps[-1]
        open_run(Path(str(config.run_dir)), study, asdict(config))
        arms = {address: role.split("/")[1] for role, address in report.inputs.items() if "/" in role}
        for step in steps:
            if step.kind != "report" and not skip(step):
                publish(Task(step, 0, store=Path(str(config.store))), arms.get(step.address, ""), SHIFT | (shift or {}))
        return Task(report, 0, store=Path(str(config.store)))

    return make


def publish(task: Task, arm: str, shift: dict[str, float]) -> None:
    """An artifact as the step of that kind leaves it, with what the report reads of it."""
    make = {
        "tokenize": tokens,
        "execute": executed,
        "filter": filtered,
        "refine": refined,
        "score": lambda task, arm: {
            "doc": {"f1": 0.941, "precision": 0.93, "recall": 0.952},
            "line": {"f1": 0.874, "precision": 0.9, "recall": 0.85, "page_f1": 0.861, "documents": 1105},
        },
        "adapt": adapted,
        "pretrain": pretrained,
        "evaluate": lambda task, arm: evaluated(task, arm, shift[arm]),
    }.get(task.step.kind, lambda task, arm: {})
    summary = make(task, arm)
    publish_json(task.out / "artifact.json", {"summary": summary, "versions": VERSIONS, "kind": task.step.kind})
    replace_json(task.state / "tasks" / "00000.json", {"state": "done", "seconds": 12.5, "machine": NODE})


def tokens(task: Task, arm: str) -> dict[str, Any]:
    return {"blocks": 8, "documents": KEPT[arm], "tokens": KEPT[arm] * 310, "utf8_bytes": KEPT[arm] * 1100}


def executed(task: Task, arm: str) -> dict[str, Any]:
    outcomes = {"untouched": KEPT[arm] - 400, "edited": 400, "dropped": DOCUMENTS - KEPT[arm] - 3, "failed": 3}
    block = {"documents": KEPT[arm], "documents_in": DOCUMENTS, "outcomes": outcomes}
    publish_json(task.out / "blocks" / "00000.json", block)
    summary = {"documents_in": DOCUMENTS, "documents_out": KEPT[arm], "outcomes": outcomes}
    return summary | {"tokens": NEEDED.get(arm, {})}


def filtered(task: Task, arm: str) -> dict[str, Any]:
    dropped = {"gopher_quality": DOCUMENTS - KEPT[arm] - 3}
    block = {"documents": KEPT[arm], "documents_in": DOCUMENTS - 3, "dropped": dropped, "failed": {"not UTF-8": 3}}
    publish_json(task.out / "blocks" / "00000.json", block)
    return {"documents_in": DOCUMENTS, "documents_out": KEPT[arm], "dropped": dropped}


def refined(task: Task, arm: str) -> dict[str, Any]:
    block = {"in": DOCUMENTS, "kept": 1105, "failed": 3, "untouched": 200, "edited": 905, "dropped": 892}
    publish_json(task.out / "blocks" / "00000.json", block)
    return {
        "documents": block,
        "programs": {"doc": {"ok": 1997}, "chunk": {"ok": 1290, "partial": 31, "malformed": 12, "truncated": 4}},
        "reasons": {"doc_program": 880, "too_few_words": 12},
        "failures": {"not UTF-8": 3},
        "tokens": {"doc_prefill": 650_000, "doc_decode": 0, "chunk_prefill": 420_000, "chunk_decode": 21_000},
        "parameters": {"doc": MODEL, "chunk": MODEL},
        "server_version": "0.5.23",
    }


def trained(tokens: int) -> dict[str, Any]:
    return {
        "steps": STEPS[-1],
        "tokens": tokens,
        "epochs": 1.3,
        "loss": 2.4,
        "flops": 6.0 * PARAMETERS["minus_one_embedding"] * tokens,
        "exact_flops": 6.9 * PARAMETERS["minus_one_embedding"] * tokens,
        "seconds": 61.2,
        "tokens_per_second": 6420.0,
        "parameters": PARAMETERS,
    }


def losses(task: Task) -> None:
    lines = [{"step": step, "loss": 7.6 / step**0.3} for step in range(1, STEPS[-1] + 1)]
    (task.out).mkdir(parents=True, exist_ok=True)
    (task.out / "losses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def adapted(task: Task, arm: str) -> dict[str, Any]:
    losses(task)
    (task.out / "model").mkdir(exist_ok=True)
    publish_json(task.out / "refiner.json", {"parameters": PARAMETERS, "training": trained(100_000)})
    return {}


def pretrained(task: Task, arm: str) -> dict[str, Any]:
    losses(task)
    for step in STEPS:
        publish_json(task.out / "checkpoints" / f"step-{step:06d}" / "checkpoint.json", {"step": step})
    publish_json(task.out / "run.json", trained(STEPS[-1] * STEP_TOKENS))
    return {}


def evaluated(task: Task, arm: str, shift: float) -> dict[str, Any]:
    """Items answered rightly with the true probability, each item as hard for every run (so arms are paired)."""
    common, own = np.random.default_rng(0), np.random.default_rng(int(task.step.fingerprint, 16))
    hardness, sizes = common.normal(0, 1.0, ITEMS), common.integers(300, 900, TEXTS)
    scores, columns = [], []
    for step in STEPS:
        tokens = step * STEP_TOKENS
        doublings = np.log2(step / STEPS[0]) + shift
        chance = 1 / (1 + np.exp(-(doublings - 1.5 + hardness + own.normal(0, 0.3, ITEMS))))
        correct = (chance > 0.5).astype(float)
        bits = sizes * (2.6 - 0.25 * doublings + own.normal(0, 0.03, TEXTS))
        values = {
            "world_cloze": {"acc": correct.mean(), "acc_norm": correct.mean(), "acc_norm_stderr": 0.02},
            "world_bpb": {"bits_per_byte": bits.sum() / sizes.sum(), "byte_perplexity": 3.0},
        }
        about = {"step": step, "tokens": tokens, "flops": 6.0 * PARAMETERS["minus_one_embedding"] * tokens}
        scores.append(about | {"scores": values, "forward_tokens": 40_000})
        columns += [(step, "world_cloze", i, correct[i], None, None) for i in range(ITEMS)]
        columns += [(step, "world_bpb", i, None, bits[i], int(sizes[i])) for i in range(TEXTS)]
    publish_json(task.out / "scores.json", {"checkpoints": scores, "skipped": {}, "lm_eval": "0.4.13"})
    step, name, item, correct, bits, size = zip(*columns, strict=True)
    table = {"step": step, "task": name, "item": item, "correct_norm": correct, "bits": bits, "bytes": size}
    pq.write_table(pa.table({key: pa.array(values) for key, values in table.items()}), task.out / "items.parquet")
    return {}
