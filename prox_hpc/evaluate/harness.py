"""Scores of checkpoints through lm-eval; only tasks import this, since it imports torch and lm-eval.

lm-eval is given task files of our making that include the original one (ours or lm-eval's own) and say what is
different: the name (`arc_easy@2`), the number of examples, and where the data is, a prepared folder or the held-out
artifact.
"""

import gc
import glob
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml
from lm_eval import __version__ as lm_eval_version
from lm_eval import tasks as lm_eval_tasks
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from prox_hpc.errors import UserError
from prox_hpc.evaluate import catalogue
from prox_hpc.evaluate.prepared import FETCH, HUB, Prepared, read
from prox_hpc.evaluate.scores import item_columns, metrics, with_groups

LM_EVAL_TASKS = Path(lm_eval_tasks.__file__).parent


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


@dataclass(frozen=True)
class Data:
    """Where tasks read: the held-out artifact (None without one) and the prepared folder (None: the hub)."""

    heldout: Path | None
    prepared: Path | None

    @staticmethod
    def of(heldout: Path | None, said: str | None) -> "Data":
        """said: `evaluation.data`."""
        return Data(heldout, Path(said) if said and said != HUB else None)


@dataclass(frozen=True)
class Loaded:
    """lm-eval's task objects (and groups), ready for any number of checkpoints.

    asked: names of the configuration that can be scored. skipped: tasks that cannot, with the reason.
    """

    manager: TaskManager
    objects: list[Any]
    asked: list[str]
    skipped: dict[str, str]

    @property
    def groups(self) -> dict[str, list[str]]:
        return catalogue.all_groups(self.asked)


@contextmanager
def load_tasks(names: list[str], data: Data, state: Path) -> Iterator[Loaded]:
    """The tasks of these names with their data.

    Our own task files and the datasets' Arrow cache live in a temporary folder under `state`: the default cache, in the
    home folder, may be full or read-only on a compute node. Raises UserError for names that lm-eval does not know, for
    data that cannot be read, and when no task is left.
    """
    for name in ("lm_eval", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    asked, skipped = without_data(names, data.heldout)
    state.mkdir(parents=True, exist_ok=True)
    # datasets keeps its files open, and NFS cannot remove such a file altogether
    with tempfile.TemporaryDirectory(dir=state, prefix="lm_eval-", ignore_cleanup_errors=True) as folder:
        leaves = catalogue.leaves(asked)
        manager = task_manager(leaves, data, Path(folder))
        try:
            found = manager.load(leaves)
        except (OSError, ValueError, RuntimeError) as error:  # what `datasets` raises
            said = " ".join(str(error).split())[:300]
            raise UserError(
                f"evaluation.tasks: the data of a task cannot be read: {said}; where there is network, `{FETCH} FOLDER "
                f"--tasks NAME ...`, then evaluation.data=FOLDER"
            ) from error
        inner = {child for children in found.get("group_map", {}).values() for child in children}
        both = {**found.get("groups", {}), **found["tasks"]}
        yield Loaded(manager, [both[name] for name in both if name not in inner], asked, skipped)


def without_data(names: list[str], heldout: Path | None) -> tuple[list[str], dict[str, str]]:
    """(names that can be scored, {name: why not}): the held-out data may hold no questions."""
    ours = catalogue.task_files()
    files = {name: ours[name].heldout for name in names if name in ours and ours[name].heldout}
    skipped = {
        name: f"the held-out data has no {file}"
        for name, file in files.items()
        if heldout is None or not (heldout / str(file)).exists()
    }
    asked = [name for name in names if name not in skipped]
    if not asked:
        raise UserError(f"evaluation.tasks={names}: none can run, {skipped or 'the list is empty'}; name another task")
    return asked, skipped


def task_manager(names: list[str], data: Data, folder: Path) -> TaskManager:
    """lm-eval's index of tasks, with our files of them in `folder`; UserError for a name it does not know.

    Indexing lm-eval's own thousands of files takes seconds: done only where one of them is named that is not prepared,
    and once more where that is one of its groups.
    """
    prepared = read(data.prepared) if data.prepared else {}
    described = {*catalogue.task_files(), *prepared}
    own = [name for name in names if catalogue.parse(name)[0] not in described]
    index = catalogue.lm_eval_index() if own else {}
    as_they_are = [name for name in own if "@" not in name and not _is_single(name, index)]
    for number, name in enumerate(names):
        if name not in as_they_are:
            file = task_file(name, prepared, index, data, folder / "cache")
            (folder / f"{number:03}.yaml").write_text(yaml.safe_dump(file))
    manager = TaskManager(include_path=str(folder), include_defaults=any(name in index for name in as_they_are))
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        raise UserError(f"evaluation.tasks: lm-eval {lm_eval_version} knows no task {unknown}; see lm_eval ls tasks")
    return manager


def task_file(
    name: str, prepared: dict[str, Prepared], index: dict[str, Any], data: Data, cache: Path
) -> dict[str, Any]:
    """What the task file of `name` says: all that is in the original, but its name, its examples and its data."""
    task, shots = catalogue.parse(name)
    ours = catalogue.task_files().get(task)
    said: dict[str, Any] = {"include": str(_original(task, prepared, index)), "task": name}
    if shots is not None:
        said["num_fewshot"] = shots
    if ours and ours.subset:
        said["dataset_name"] = ours.subset
    files: dict[str, Path] = {}
    if ours and ours.heldout:
        assert data.heldout
        files = {"test": data.heldout / ours.heldout}
    elif task in prepared:
        assert data.prepared
        files = {split: data.prepared / of.file for split, of in prepared[task].splits.items()}
        said |= {"dataset_path": "parquet", "dataset_name": None}
    if files:
        paths = {split: glob.escape(str(path)) for split, path in files.items()}  # datasets takes them as patterns
        said["dataset_kwargs"] = {"data_files": paths, "cache_dir": str(cache)}
    return said


def _original(task: str, prepared: dict[str, Prepared], index: dict[str, Any]) -> Path:
    """The file that describes a task, ours or lm-eval's."""
    if task in catalogue.task_files():
        return catalogue.task_files()[task].path
    if task in prepared:
        path = LM_EVAL_TASKS / str(prepared[task].task_file)
        if not path.exists():
            raise UserError(
                f"evaluation.tasks: {task} was prepared with another lm-eval than {lm_eval_version}, which has no "
                f"{prepared[task].task_file}; delete it from the folder's manifest.json and `{FETCH}` again"
            )
        return path
    if not _is_single(task, index):
        raise UserError(
            f"evaluation.tasks: lm-eval {lm_eval_version} knows no single task {task}; see lm_eval ls tasks"
        )
    return Path(index[task].yaml_path)


def _is_single(task: str, index: dict[str, Any]) -> bool:
    """Whether it is one of lm-eval's tasks that a file describes: no group, no code."""
    return task in index and index[task].kind.name == "TASK"


def score_checkpoint(checkpoint: Path, tasks: Loaded, device: str, batch_size: int) -> dict[str, Any]:
    """Scores and per-item results of one checkpoint folder (safetensors, tokenizer, checkpoint.json).

    fp32 on a CPU, else the checkpoint's own type; the softmax is always fp32. Documents are conditioned on EOS and
    queries get no BOS: the trainees saw packed text, EOS between documents and no BOS.
    """
    described = json.loads((checkpoint / "checkpoint.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True, use_safetensors=True)
    model = model.float() if device == "cpu" else model.to(device)
    lm = QuietLM(
        pretrained=model.eval(),
        tokenizer=tokenizer,
        batch_size=batch_size,
        softmax_dtype="float32",
        add_bos_token=False,
        prefix_token_id=tokenizer.eos_token_id,
    )
    answer = simple_evaluate(lm, tasks=tasks.objects, task_manager=tasks.manager, log_samples=True)
    items = {name: item_columns(samples) for name, samples in answer["samples"].items()}
    del model
    gc.collect()
    scores = {name: metrics(values, items.get(name, {})) for name, values in answer["results"].items()}
    return {
        "step": described["step"],
        "tokens": described["tokens"],
        "flops": described.get("flops"),
        "exact_flops": described.get("exact_flops"),
        **by_column(with_groups(scores, tasks.groups), tasks.asked),
        "items": items,
        "forward_tokens": lm.forward_tokens,
        "groups": tasks.groups,
        "skipped": tasks.skipped,
        "lm_eval": lm_eval_version,
    }


def by_column(scores: dict[str, Any], asked: list[str]) -> dict[str, Any]:
    """`scores` of what tables have as columns, and `subsets`, the parts of a task, unless they were asked for."""
    files = catalogue.task_files()
    subsets = {name for name in scores if name not in asked and name in files and files[name].subset}
    return {
        "scores": {name: values for name, values in scores.items() if name not in subsets},
        "subsets": {name: scores[name] for name in sorted(subsets)},
    }
