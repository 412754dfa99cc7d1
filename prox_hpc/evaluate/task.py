"""Step `evaluate`: score every checkpoint of a pre-training run through lm-eval.

The tasks of its array share the checkpoints. One task for each is quickest where there are many nodes; most of the
time of a small evaluation is the import of torch and lm-eval, so on one machine one task scores all of them. Per-item
results are kept, because the report's intervals are bootstrapped over items. A task may begin while training still
runs, as soon as its checkpoints are exported, which are whole and final from then on. Sealing merges what the tasks
remembered in the step's state folder, and imports neither torch nor lm-eval.
"""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prox_hpc.errors import UserError
from prox_hpc.evaluate.prepared import HUB, check_unchanged
from prox_hpc.publish import publish_file, publish_json
from prox_hpc.task import Step, Task
from prox_hpc.train.schedule import checkpoint_steps, settings_of

ITEM_SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("task", pa.string()),
        ("item", pa.int64()),
        ("correct", pa.float64()),  # multiple choice: 1.0 when the likeliest choice is the gold one
        ("correct_norm", pa.float64()),  # the same, likelihoods divided by the choices' characters
        ("bits", pa.float64()),  # rolling likelihood: -log2 p(text)
        ("bytes", pa.int64()),  # rolling likelihood: UTF-8 bytes of the text
    ]
)

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
"""What of a shape is compared with a checkpoint's config.json."""


def run(task: Task) -> None:
    """Score this task's share of the `checkpoints/step-NNNNNN` of input `pretrain` on `config["tasks"]`.

    Input `heldout` (optional) holds `text.jsonl` and, for the generated world, `cloze.jsonl`; one of our tasks whose
    held-out file is absent is skipped and named in `scores.json`. Each scored checkpoint is remembered at once, so that
    a task started again goes on with the next one. Raises UserError for an unknown task name, for data or checkpoints
    that are not there, and for a checkpoint of another shape than the run's.
    """
    if ready(task):
        mine, trained = _share(task, _expected(task)), _training(task).config
    else:
        pretrain = task.input("pretrain")
        mine = _share(task, find_checkpoints(pretrain))
        trained = json.loads((pretrain / "artifact.json").read_text())["config"]
    left = [checkpoint for checkpoint in mine if not _remembered(task, checkpoint).exists()]
    for checkpoint in left:
        check_weights(checkpoint)
        check_shape(checkpoint, trained)
    if left:
        _score(task, left, len(mine))
    if mine:
        task.progress(len(mine), len(mine), "checkpoints")


def ready(task: Task) -> bool:
    """Whether training still runs and this task may begin all the same: its other input and its checkpoints are there.

    The task with the last checkpoint may not: that one comes with the end of training, which the seal has to follow.
    """
    if "early" not in task.step.runtime or task.is_published("pretrain"):
        return False
    expected = _expected(task)
    mine = _share(task, expected)
    others = all(task.is_published(role) for role in task.step.inputs if role != "pretrain")
    return others and expected[-1] not in mine and all((path / "checkpoint.json").exists() for path in mine)


def _training(task: Task) -> Step:
    """The step that makes the checkpoints, as it was launched."""
    path = task.store / "steps" / task.step.inputs["pretrain"] / "step.json"
    return Step.from_json(json.loads(path.read_text()))


def _expected(task: Task) -> list[Path]:
    """Folders of the checkpoints that training makes, in its order."""
    folder = task.store / "artifacts" / task.step.inputs["pretrain"] / "checkpoints"
    return [folder / f"step-{step:06d}" for step in checkpoint_steps(settings_of(_training(task)))]


def _share(task: Task, checkpoints: list[Path]) -> list[Path]:
    """This task's: neighbours, so that the first tasks of a small array need not wait for the end of training."""
    count, tasks = len(checkpoints), task.step.tasks
    return checkpoints[task.index * count // tasks : (task.index + 1) * count // tasks]


def _score(task: Task, left: list[Path], count: int) -> None:
    runtime = task.step.runtime
    data = runtime.get("data")
    check_unchanged(data, task.config.get("data", {}))
    # Compute nodes often have no network, and all but the hub is local: a look at it would only be a long wait. Both
    # are read when the libraries are first imported, hence before them.
    os.environ.setdefault("HF_HUB_OFFLINE", "0" if data == HUB else "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", os.environ["HF_HUB_OFFLINE"])
    from prox_hpc.evaluate.harness import Data, load_tasks, score_checkpoint

    with load_tasks(list(task.config["tasks"]), Data.of(task.optional_input("heldout"), data), task.state) as tasks:
        for number, checkpoint in enumerate(left):
            task.progress(count - len(left) + number, count, "checkpoints")
            result = score_checkpoint(checkpoint, tasks, runtime.get("device", "cpu"), task.config["batch_size"])
            publish_json(_remembered(task, checkpoint), result)


def seal(task: Task) -> dict[str, Any]:
    """Merge the scores of all checkpoints into `scores.json` and `items.parquet`; then prune the checkpoints.

    Summary: checkpoints, items, tasks skipped, final scores, tokens, lm_eval. RuntimeError when a checkpoint is not
    scored.
    """
    checkpoints = find_checkpoints(task.input("pretrain"))
    missing = [path.name for path in checkpoints if not _remembered(task, path).exists()]
    if missing:
        raise RuntimeError(f"{task.out}: {', '.join(missing)} are not scored; launch again")
    results = [json.loads(_remembered(task, path).read_text()) for path in checkpoints]
    items = item_table(results)
    publish_file(task.out / "items.parquet", lambda draft: pq.write_table(items, draft))
    common = {key: results[-1][key] for key in ("groups", "skipped", "lm_eval")}
    apart = {"items", *common}
    scores = [{key: value for key, value in result.items() if key not in apart} for result in results]
    publish_json(task.out / "scores.json", {"checkpoints": scores, **common})
    prune(checkpoints, task.step.runtime.get("keep_checkpoints", "all"))
    return {
        "checkpoints": len(scores),
        "items": items.num_rows,
        "skipped": common["skipped"],
        "final": scores[-1]["scores"],
        "forward_tokens": sum(entry["forward_tokens"] for entry in scores),
        "lm_eval": common["lm_eval"],
    }


def _remembered(task: Task, checkpoint: Path) -> Path:
    """Where the scores of a checkpoint wait for the seal."""
    return task.state / "checkpoints" / f"{checkpoint.name}.json"


def find_checkpoints(pretrain: Path) -> list[Path]:
    """Checkpoint folders of a pretrain artifact in the order of training."""
    found = sorted(path.parent for path in pretrain.glob("checkpoints/step-*/checkpoint.json"))
    if not found:
        raise UserError(f"{pretrain / 'checkpoints'}: no checkpoint to evaluate; train with training.checkpoints >= 1")
    return found


def prune(checkpoints: list[Path], keep: str) -> None:
    """Remove the weights of all checkpoints but those that `keep` says: `all`, `last`, `none`."""
    for checkpoint in {"all": [], "last": checkpoints[:-1], "none": checkpoints}[keep]:
        for weights in checkpoint.glob("*.safetensors"):
            weights.unlink()


def check_weights(checkpoint: Path) -> None:
    """UserError when the weights of a checkpoint are gone."""
    if not any(checkpoint.glob("*.safetensors")):
        raise UserError(
            f"{checkpoint}: its weights are gone (evaluation.keep_checkpoints removes them once they are scored); "
            f"delete {checkpoint.parents[1]} and launch again to train it anew"
        )


def check_shape(checkpoint: Path, trained: dict[str, Any]) -> None:
    """UserError when a checkpoint's config.json is of another shape than `trained`, the run's configuration, says."""
    if trained.get("model"):
        return  # the shape is that of the model that was trained further
    found, shape = json.loads((checkpoint / "config.json").read_text()), trained["shape"]
    wanted = {"model_type": shape["architecture"], **{key: shape[key] for key in SIZES}}
    # GPT-NeoX knows no KV heads
    wrong = [f"{key}={found[key]}, not {value}" for key, value in wanted.items() if found.get(key, value) != value]
    if wrong:
        raise UserError(
            f"{checkpoint}: is a checkpoint of another configuration ({'; '.join(wrong)}); delete "
            f"{checkpoint.parents[1]} and launch again"
        )


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
