"""What a study has published so far, read from the store: the report's view of artifacts, whole or missing.

Reads only, and needs no step to be complete: an artifact counts when its `artifact.json` is there, and for a step
without one the task status files say how far it came.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prox_hpc.config import Alarms, Charges, Report
from prox_hpc.report.matched import Array, Curve
from prox_hpc.task import Task

# The score of a task is the first of these that lm-eval reports: (metric, its label, whether higher is better). The
# paper compares length-normalised accuracy.
METRICS = (
    ("acc_norm", "normalised accuracy", True),
    ("acc", "accuracy", True),
    ("exact_match", "exact match", True),
    ("bits_per_byte", "bits per byte", False),
    ("perplexity", "perplexity", False),
    ("word_perplexity", "perplexity per word", False),
)


@dataclass(frozen=True)
class Run:
    """One trainee: an arm and a seed, with whatever of its training and evaluation is published.

    remembered: of an evaluation that is not published yet, what it stored of each checkpoint scored so far.
    """

    arm: str
    seed: int
    pretrain: Path | None
    evaluate: Path | None
    remembered: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Study:
    """config: the composed configuration. steps: address -> {kind, name, inputs, tasks}. roles: role -> address.

    run: its run folder. resources: `cluster.resources`, what tasks were given.
    """

    store: Path
    config: dict[str, Any]
    steps: dict[str, dict[str, Any]]
    roles: dict[str, str]
    run: Path
    resources: dict[str, dict[str, Any]]

    @staticmethod
    def of(task: Task) -> "Study":
        runtime = task.step.runtime
        run, resources = Path(runtime["run_dir"]), runtime.get("resources", {})
        return Study(task.store, task.config["study"], task.config["steps"], task.step.inputs, run, resources)

    @property
    def settings(self) -> Report:
        """The `report` section of the configuration; studies older than it have its defaults."""
        given = dict(self.config.get("report", {}))
        charge, alarms = Charges(**given.pop("charge", {})), Alarms(**given.pop("alarms", {}))
        return Report(charge=charge, alarms=alarms, **given)

    def artifact(self, role: str) -> Path | None:
        """Folder of the artifact in `role`, None when the study has no such role or it is not published."""
        folder = self.store / "artifacts" / self.roles[role] if role in self.roles else None
        return folder if folder and (folder / "artifact.json").exists() else None

    def manifest(self, role: str) -> dict[str, Any]:
        """`artifact.json` of the artifact in `role`; {} when missing."""
        folder = self.artifact(role)
        return load_json(folder / "artifact.json") if folder else {}

    def summary(self, role: str) -> dict[str, Any]:
        """What the step's seal summed up; {} when missing."""
        summary: dict[str, Any] = self.manifest(role).get("summary", {})
        return summary

    def arms(self) -> list[str]:
        """Arms in the order of the configuration."""
        return list(self.config["arm"])

    def runs(self) -> list[Run]:
        """All trainees planned, by arm and seed."""
        return [self.run_of(arm, seed) for arm in self.arms() for seed in self.config["seeds"]]

    def run_of(self, arm: str, seed: int) -> Run:
        role = f"evaluate/{arm}/seed{seed}"
        evaluate = self.artifact(role)
        remembered: tuple[Path, ...] = ()
        if evaluate is None and role in self.roles:
            remembered = tuple(sorted((self.store / "steps" / self.roles[role] / "checkpoints").glob("step-*.json")))
        return Run(arm, seed, self.artifact(f"pretrain/{arm}/seed{seed}"), evaluate, remembered)

    def partial(self) -> list[dict[str, Any]]:
        """Runs of which some checkpoints are scored: {arm, seed, scored, of}.

        of: how many its training made; while it still runs, how many were asked for.
        """
        asked = self.config["trainee"]["training"]["checkpoints"]
        return [
            {
                "arm": run.arm,
                "seed": run.seed,
                "scored": len(run.remembered),
                "of": len(list(run.pretrain.glob("checkpoints/step-*/checkpoint.json"))) if run.pretrain else asked,
            }
            for run in self.runs()
            if run.remembered
        ]

    def missing(self) -> list[dict[str, str]]:
        """Steps without an artifact: `step, state, error`; failed ones first, since the others wait for them."""
        found = []
        for address, step in self.steps.items():
            if step["kind"] == "report" or (self.store / "artifacts" / address / "artifact.json").exists():
                continue
            statuses = list(self.statuses(address))
            errors = [status["error"] for status in statuses if status.get("error")]
            states = {status.get("state", "unknown") for status in statuses}
            done = states == {"done"} and len(statuses) == step["tasks"]
            state = "failed" if "failed" in states else "not sealed" if done else "begun" if states else "not started"
            found.append({"step": address, "state": state, "error": errors[0] if errors else ""})
        return sorted(found, key=lambda item: item["state"] != "failed")

    def statuses(self, address: str) -> Iterator[dict[str, Any]]:
        """Newest status of each task that began."""
        for path in sorted((self.store / "steps" / address / "tasks").glob("*.json")):
            yield json.loads(path.read_text())

    def jobs(self, address: str) -> set[str]:
        """Ids (array ids for arrays) of all Slurm jobs of a step: of its last launch, and of those that left logs."""
        folder = self.store / "steps" / address
        claim = folder / "claim.json"
        last = json.loads(claim.read_text()).get("jobs", []) if claim.exists() else []
        return {*last, *(path.name.split("_")[0] for path in (folder / "logs").glob("[0-9]*") if path.is_dir())}

    def logs(self, address: str) -> list[Path]:
        """What the step's tasks wrote, newest last."""
        found = [path for path in (self.store / "steps" / address / "logs").rglob("*log*") if path.is_file()]
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def device(self, address: str) -> str:
        """`cpu` or `cuda`, as the step recorded it; "" when it did not."""
        manifest = self.store / "artifacts" / address / "artifact.json"
        runtime = load_json(manifest).get("runtime", {}) if manifest.exists() else {}
        device: str = runtime.get("device") or runtime.get("serve", {}).get("device", "")
        return device

    def versions(self) -> dict[str, str]:
        """Package -> the version(s) its artifacts were made with."""
        found: dict[str, set[str]] = {}
        for role in self.roles:
            for package, version in self.manifest(role).get("versions", {}).items():
                if version != "not installed":
                    found.setdefault(package, set()).add(version)
        return {package: ", ".join(sorted(versions)) for package, versions in sorted(found.items())}

    def machines(self) -> dict[str, list[str]]:
        """Node, as its tasks described it -> the kinds of steps that ran on such nodes."""
        found: dict[str, set[str]] = {}
        for address, step in self.steps.items():
            for status in self.statuses(address):
                if "machine" in status:
                    found.setdefault(status["machine"], set()).add(step["kind"])
        return {machine: sorted(kinds) for machine, kinds in sorted(found.items())}


@cache
def load_json(path: Path) -> Any:
    """The JSON file at `path`, read once per process (published files do not change)."""
    return json.loads(path.read_text())


def first_last(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """First and last line of a JSONL file; None when it is absent or empty."""
    lines = path.read_text().splitlines() if path.exists() else []
    return (json.loads(lines[0]), json.loads(lines[-1])) if lines else None


@cache
def evaluation(run: Run) -> dict[str, Any]:
    """What `scores.json` of a run holds, or would hold if the checkpoints scored so far were all; {} without any."""
    if run.evaluate:
        found: dict[str, Any] = load_json(run.evaluate / "scores.json")
        return found
    results = [load_json(path) for path in run.remembered]
    return {"checkpoints": results, **{key: results[-1][key] for key in ("groups", "skipped")}} if results else {}


def checkpoints(run: Run) -> list[dict[str, Any]]:
    """The scored checkpoints of a run (see `prox_hpc.evaluate.task`), in the order of training."""
    return sorted(evaluation(run).get("checkpoints", []), key=lambda entry: entry["step"])


def furthest(runs: list[Run]) -> list[Run]:
    """The runs of which most checkpoints are scored, so that one still being scored does not cut the others short."""
    counts = [len(checkpoints(run)) for run in runs]
    return [run for run, count in zip(runs, counts, strict=True) if count and count == max(counts)]


def groups(runs: list[Run]) -> dict[str, list[str]]:
    """Tasks that are the plain mean of others (the ten tasks of the paper, MMLU of its subsets), with their members."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found |= evaluation(run).get("groups", {})
    return found


def scores_of(entry: dict[str, Any], task: str) -> dict[str, float]:
    """Metrics of a task, which may be a part of another one, at a checkpoint; {} when it was not scored."""
    scores: dict[str, float] = entry["scores"].get(task) or entry.get("subsets", {}).get(task, {})
    return scores


def metric_of(task: str, runs: list[Run]) -> tuple[str, str, bool] | None:
    """The metric compared on an lm-eval task, None when no run has a score of a kind we know."""
    seen = {name for run in runs for entry in checkpoints(run) for name in scores_of(entry, task)}
    return next((metric for metric in METRICS if metric[0] in seen), None)


def common_steps(runs: list[Run], task: str, metric: str) -> list[int]:
    """Training steps at which all evaluated runs have the score, with known FLOPs."""
    per_run = [
        {entry["step"] for entry in checkpoints(run) if metric in scores_of(entry, task) and entry.get("flops")}
        for run in runs
    ]
    return sorted(set.intersection(*per_run)) if per_run else []


def curve(runs: list[Run], task: str, metric: str) -> Curve | None:
    """The curve of one arm from its evaluated seeds, with item results where all have them; None without a score.

    Of seeds still being scored only those count that are furthest.

    That of a group is the mean of its members' curves, so that their items are resampled.
    """
    return _curve(tuple(runs), task, metric)


@cache
def _curve(given: tuple[Run, ...], task: str, metric: str) -> Curve | None:
    """A task is a part of groups, too, and reading its items takes longest."""
    runs = furthest([run for run in given if any(metric in scores_of(entry, task) for entry in checkpoints(run))])
    steps = common_steps(runs, task, metric)
    if not steps:
        return None
    members = groups(runs).get(task, [])
    parts = [curve(runs, member, known[0]) for member in members if (known := metric_of(member, runs))]
    if members and len(parts) == len(members) and (averaged := average([part for part in parts if part])):
        return averaged
    entries = [{entry["step"]: entry for entry in checkpoints(run)} for run in runs]
    flops = np.array([entries[0][step]["flops"] for step in steps], float)
    by_item = item_results(runs, task, metric, steps)
    if by_item is not None:
        return Curve(flops, *by_item)
    return Curve.of_scores(flops, [[scores_of(entry[step], task)[metric] for step in steps] for entry in entries])


def average(lines: list[Curve]) -> Curve | None:
    """The plain mean of tasks that were scored at the same checkpoints of the same runs; None when they were not."""
    alike = len({(line.seeds, tuple(line.flops)) for line in lines}) == 1
    return Curve.average(lines) if alike else None


def item_results(runs: list[Run], task: str, metric: str, steps: list[int]) -> tuple[Array, Array] | None:
    """((S, P, I), (I,)) per-item numerators and denominators; None when a run has no item results."""
    columns = {"acc_norm": ("correct_norm", None), "acc": ("correct", None), "bits_per_byte": ("bits", "bytes")}
    if metric not in columns:
        return None
    value, weight = columns[metric]
    parts, weights = [], []
    for run in runs:
        table = items_of(run, task, value, weight).sort_by([("step", "ascending"), ("item", "ascending")])
        step, item = table["step"].to_numpy(), table["item"].to_numpy()
        rows = [step == wanted for wanted in steps]
        if not rows[0].any() or any(not np.array_equal(item[row], item[rows[0]]) for row in rows):
            return None
        values = table[value].to_numpy()
        parts.append(np.stack([values[row] for row in rows]))
        weights.append(table[weight].to_numpy()[rows[0]].astype(float) if weight else np.ones(int(rows[0].sum())))
    if any(not np.array_equal(weights[0], other) for other in weights[1:]):
        return None
    return np.stack(parts).astype(float), weights[0]


def items_of(run: Run, task: str, value: str, weight: str | None) -> pa.Table:
    """Item results of a task at all checkpoints scored: the columns `step`, `item`, those named, and maybe others."""
    if run.evaluate:
        return pq.read_table(run.evaluate / "items.parquet", filters=[("task", "=", task)])
    found: dict[str, list[Any]] = {column: [] for column in ("step", "item", value, weight) if column}
    for result in map(load_json, run.remembered):
        own = result["items"].get(task) or {"item": []}
        for column, values in {"step": [result["step"]] * len(own["item"]), **own}.items():
            if column in found:
                found[column] += values
    kinds = {"step": pa.int64(), "item": pa.int64()}
    return pa.table({column: pa.array(values, kinds.get(column, pa.float64())) for column, values in found.items()})
