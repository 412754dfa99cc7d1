"""Score every checkpoint of a pre-training run through lm-eval, in one process.

Most of the time of a small evaluation is the import of torch and lm-eval, so one task scores all checkpoints. Our own
lm-eval task files (`tasks/*.yaml`) read the data of the heldout artifact; any other configured name is one of
lm-eval's own tasks. Per-item results are kept, because the report's intervals are bootstrapped over items.
"""

import gc
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Compute nodes often have no network, and everything read here is local: a look at the hub would only be a long wait.
# lm-eval's own tasks work from a filled cache; HF_HUB_OFFLINE=0 in cluster.environment allows the network. Both are
# read when the libraries are first imported, hence before them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", os.environ["HF_HUB_OFFLINE"])

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from lm_eval import __version__ as lm_eval_version
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from prox_hpc.errors import UserError
from prox_hpc.publish import publish_file, publish_json
from prox_hpc.task import Task

TASK_FILES = Path(__file__).parent / "tasks"

ITEM_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("task", pa.string()),
        ("item", pa.int64()),
        ("correct", pa.float64()),  # multiple choice: 1.0 when the likeliest choice is the gold one
        ("correct_norm", pa.float64()),  # the same, likelihoods divided by the choices' bytes
        ("bits", pa.float64()),  # rolling likelihood: -log2 p(text)
        ("bytes", pa.int64()),  # rolling likelihood: UTF-8 bytes of the text
    ]
)


class QuietLM(HFLM):
    """lm-eval's model without progress bars, counting the tokens (padding included) it sends through the model."""

    forward_tokens = 0

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.forward_tokens += inps.numel()
        return super()._model_call(inps, *args, **kwargs)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
        return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)


def run(task: Task) -> None:
    """Score each `checkpoints/step-NNNNNN` of input `pretrain` on `config["tasks"]`; publish scores and items.

    Input `heldout` holds `text.jsonl` and, for the generated world, `cloze.jsonl`; one of our tasks whose data file
    is absent is skipped and named in `scores.json`. Scored checkpoints are remembered in the step's state folder, so
    a task started again goes on with the next one.
    Raises UserError for an unknown task name, and when no task or no checkpoint is left to score.
    """
    if (task.out / "scores.json").exists() and (task.out / "items.parquet").exists():
        return
    for name in ("lm_eval", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    checkpoints = find_checkpoints(task.input("pretrain"))
    names, skipped = choose_tasks(list(task.config["tasks"]), task.input("heldout"))
    results = []
    with task_manager(names, task.input("heldout"), task.state) as manager:
        for number, checkpoint in enumerate(checkpoints):
            task.progress(number, len(checkpoints), "checkpoints")
            remembered = task.state / "checkpoints" / f"{checkpoint.name}.json"
            if not remembered.exists():
                publish_json(remembered, score_checkpoint(checkpoint, names, manager, task))
            results.append(json.loads(remembered.read_text()))
    publish_file(task.out / "items.parquet", lambda draft: pq.write_table(item_table(results), draft))
    scores = [{key: value for key, value in result.items() if key != "items"} for result in results]
    publish_json(task.out / "scores.json", {"checkpoints": scores, "skipped": skipped, "lm_eval": lm_eval_version})
    task.progress(len(checkpoints), len(checkpoints), "checkpoints")


def seal(task: Task) -> dict[str, Any]:
    """Check that every checkpoint has its scores; summary: checkpoints, tasks, skipped, final scores, lm_eval."""
    scores = json.loads((task.out / "scores.json").read_text())
    scored = {entry["step"] for entry in scores["checkpoints"]}
    wanted = {int(path.name.removeprefix("step-")) for path in find_checkpoints(task.input("pretrain"))}
    if scored != wanted:
        raise RuntimeError(f"{task.out / 'scores.json'}: steps {sorted(wanted - scored)} are not scored")
    items = pq.read_metadata(task.out / "items.parquet").num_rows
    return {
        "checkpoints": len(scored),
        "items": items,
        "skipped": scores["skipped"],
        "final": scores["checkpoints"][-1]["scores"],
        "forward_tokens": sum(entry["forward_tokens"] for entry in scores["checkpoints"]),
        "lm_eval": scores["lm_eval"],
    }


def find_checkpoints(pretrain: Path) -> list[Path]:
    """Checkpoint folders of a pretrain artifact in the order of training."""
    found = sorted(path.parent for path in pretrain.glob("checkpoints/step-*/checkpoint.json"))
    if not found:
        raise UserError(f"{pretrain / 'checkpoints'}: no checkpoint to evaluate; train with training.checkpoints >= 1")
    return found


def data_file(name: str, heldout: Path) -> Path:
    """The file of the heldout artifact that our task `name` reads."""
    described = yaml.safe_load((TASK_FILES / f"{name}.yaml").read_text())
    return Path(described["dataset_kwargs"]["data_files"]["test"].replace("HELDOUT", str(heldout)))


def choose_tasks(wanted: list[str], heldout: Path) -> tuple[list[str], dict[str, str]]:
    """(names to run, {skipped name: reason}); a task of ours is skipped when its data file is absent."""
    skipped = {
        name: f"the held-out data has no {data_file(name, heldout).name}"
        for name in wanted
        if is_ours(name) and not data_file(name, heldout).exists()
    }
    names = [name for name in wanted if name not in skipped]
    if not names:
        raise UserError(f"evaluation.tasks={wanted}: none can run, {skipped or 'the list is empty'}; name another task")
    return names, skipped


def is_ours(name: str) -> bool:
    return (TASK_FILES / f"{name}.yaml").exists()


@contextmanager
def task_manager(names: list[str], heldout: Path, state: Path) -> Iterator[TaskManager]:
    """lm-eval's index of tasks: ours with their data paths filled in, and lm-eval's own only when one is named.

    Indexing lm-eval's own takes seconds. Rendered task files and the datasets' Arrow cache live in a temporary folder
    under `state`: the default cache, in the home folder, may be full or read-only on a compute node.
    """
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state, prefix="lm_eval-") as folder:
        for name in filter(is_ours, names):
            described = yaml.safe_load((TASK_FILES / f"{name}.yaml").read_text())
            described["dataset_kwargs"]["data_files"]["test"] = str(data_file(name, heldout))
            described["dataset_kwargs"]["cache_dir"] = str(Path(folder) / "cache")
            (Path(folder) / f"{name}.yaml").write_text(yaml.safe_dump(described))
        manager = TaskManager(include_path=folder, include_defaults=not all(map(is_ours, names)))
        unknown = [name for name in names if name not in manager.all_tasks]
        if unknown:
            raise UserError(
                f"evaluation.tasks: lm-eval {lm_eval_version} knows no task {unknown}; see lm_eval ls tasks"
            )
        yield manager


def score_checkpoint(checkpoint: Path, names: list[str], manager: TaskManager, task: Task) -> dict[str, Any]:
    """Scores and per-item results of one checkpoint folder (safetensors, tokenizer, checkpoint.json).

    fp32 on a CPU, else the checkpoint's own type; the softmax is always fp32. Documents are conditioned on EOS and
    queries get no BOS: the trainees saw packed text, EOS between documents and no BOS.
    """
    described = json.loads((checkpoint / "checkpoint.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True, use_safetensors=True)
    device = task.step.runtime.get("device", "cpu")
    model = model.float() if device == "cpu" else model.to(device)
    lm = QuietLM(
        pretrained=model.eval(),
        tokenizer=tokenizer,
        batch_size=task.config["batch_size"],
        softmax_dtype="float32",
        add_bos_token=False,
        prefix_token_id=tokenizer.eos_token_id,
    )
    answer = simple_evaluate(lm, tasks=names, task_manager=manager, log_samples=True)
    items = {name: item_columns(samples) for name, samples in answer["samples"].items()}
    del model
    gc.collect()
    return {
        "step": described["step"],
        "tokens": described["tokens"],
        "flops": described.get("flops"),
        "exact_flops": described.get("exact_flops"),
        "scores": {name: metrics(values, items.get(name, {})) for name, values in answer["results"].items()},
        "items": items,
        "forward_tokens": lm.forward_tokens,
    }


def metrics(values: dict[str, Any], items: dict[str, list[Any]]) -> dict[str, float]:
    """lm-eval's `{"acc,none": x, "acc_stderr,none": y}` as `{"acc": x, "acc_stderr": y}`; numbers only.

    lm-eval gives no standard error for bits per byte (a ratio of sums): it is filled in by the ratio estimator.
    """
    found = {
        key.removesuffix(",none"): float(value)
        for key, value in values.items()
        if "," in key and isinstance(value, (int, float)) and math.isfinite(value)
    }
    if "bits_per_byte" in found and len(items.get("bits", [])) > 1:
        found["bits_per_byte_stderr"] = ratio_stderr(items["bits"], items["bytes"])
    return found


def ratio_stderr(bits: list[float], sizes: list[int]) -> float:
    """Standard error of sum(bits) / sum(sizes) over items: linearised ratio estimator (Cochran 1977, eq. 6.13)."""
    ratio, count = sum(bits) / sum(sizes), len(bits)
    residual = sum((b - ratio * s) ** 2 for b, s in zip(bits, sizes, strict=True))
    return math.sqrt(count / (count - 1) * residual) / sum(sizes)


def item_columns(samples: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns of `ITEM_SCHEMA` from lm-eval's logged samples, in the order of the items; {} for other metrics."""
    samples = sorted((s for s in samples if s["filter"] == "none"), key=lambda sample: sample["doc_id"])
    if not samples or not {"acc", "acc_norm", "bits_per_byte"} & samples[0].keys():
        return {}
    pairs = [sample.get("bits_per_byte", (None, None)) for sample in samples]
    return {
        "item": [sample["doc_id"] for sample in samples],
        "correct": [sample.get("acc") for sample in samples],
        "correct_norm": [sample.get("acc_norm") for sample in samples],
        "bits": [None if nats is None else -nats / math.log(2) for nats, _ in pairs],
        "bytes": [size for _, size in pairs],
    }


def item_table(results: list[dict[str, Any]]) -> pa.Table:
    """All per-item results as one table of `ITEM_SCHEMA`."""
    parts = [
        pa.table(
            {
                "step": [result["step"]] * len(columns["item"]),
                "tokens": [result["tokens"]] * len(columns["item"]),
                "task": [name] * len(columns["item"]),
                **columns,
            },
            schema=ITEM_SCHEMA,
        )
        for result in results
        for name, columns in result["items"].items()
        if columns
    ]
    return pa.concat_tables(parts) if parts else ITEM_SCHEMA.empty_table()
