"""report.json: everything the report says, as plain data, from whatever the study has published.

The HTML page and the terminal summary only lay out what stands here. Nothing is assumed complete: an absent figure is
null, and what is missing is listed with its reason.
"""

import math
import time
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

import yaml

from prox_hpc.machine import machine
from prox_hpc.report.alarms import alarms
from prox_hpc.report.collect import Run, Study, average, checkpoints, curve, furthest, groups, metric_of, scores_of
from prox_hpc.report.evidence import evidence, server_version, skipped_tasks, step_table
from prox_hpc.report.excerpts import with_excerpts
from prox_hpc.report.headline import headline
from prox_hpc.report.ledger import Ledger, accounts, arm_charge, build_ledger, refiner_model, training
from prox_hpc.report.matched import Curve, compare
from prox_hpc.report.saving import break_evens, charges, refining_flops

AVERAGE = "average"
"""The plain mean of all tasks whose score is an accuracy, where the study evaluates no such mean itself."""


def build(study: Study) -> dict[str, Any]:
    """The report's content; keys are documented at the functions that make them."""
    runs = study.runs()
    missing = study.missing()
    ledger = build_ledger(study, runs)
    base, arm = baseline(study), refined_arm(study)
    metrics = compared_metrics(study, runs, ledger, base)
    report = {
        "name": study.config["name"],
        "run": str(study.run),
        "created": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "complete": not missing,
        "baseline": base,
        "arm": arm,
        "about": about_study(study),
        "arms": arm_table(study),
        "tasks": list(study.config["evaluation"]["tasks"]),
        "chosen": study.config["evaluation"]["metric"],
        "means": [*means(study, runs), AVERAGE],
        "metrics": metrics,
        "scores": score_table(study, runs, metrics),
        "not_finite": not_finite(runs, metrics),
        "refiner": study.summary("score"),
        "refiner_about": refiner_about(study),
        "programs": programs(study),
        "ledger": [asdict(row) for row in ledger.rows],
        "hours": {
            "unit": f"{ledger.hours.upper()}-hours",
            "why_no_accounts": ledger.why,
            "spread": ledger.hours_spread(),
        },
        "charge": charges(study, ledger),
        "refining_flops": refining_flops(study, ledger, arm),
        "break_even": break_evens(study, ledger, metrics),
        "missing": missing,
        "partial": study.partial(),
        "skipped": skipped_tasks(runs),
        "steps": step_table(study, ledger.usages),
        "evidence": evidence(study, runs),
        "config": yaml.safe_dump(study.config, sort_keys=False, allow_unicode=True),
        "machines": study.machines(),
        "reported_on": machine(),
        "versions": study.versions() | {"server": server_version(study) or "not recorded"},
    }
    found = with_excerpts(study, alarms(report, study.settings.alarms))
    return report | {"headline": headline(report), "alarms": found}


def baseline(study: Study) -> str | None:
    """The arm others are compared with: the first `raw` one."""
    return next((name for name, arm in study.config["arm"].items() if arm["kind"] == "raw"), None)


def refined_arm(study: Study) -> str | None:
    """The arm of the headline: `prox_dc`, or the first refined one."""
    refined = [name for name, arm in study.config["arm"].items() if arm["kind"] == "refined"]
    return "prox_dc" if "prox_dc" in refined else next(iter(refined), None)


def about_study(study: Study) -> dict[str, Any]:
    """What was compared: {corpus, trainee, parameters (of the trainee, null before one is trained), seeds}."""
    config = study.config
    runs = (training(study, f"pretrain/{arm}/seed{seed}") for arm in study.arms() for seed in config["seeds"])
    trained = next((about for about in runs if about), {})
    return {
        "corpus": config["corpus"]["name"],
        "trainee": config["trainee"]["name"],
        "parameters": trained.get("parameters", {}).get("total"),
        "seeds": list(config["seeds"]),
    }


def arm_table(study: Study) -> list[dict[str, Any]]:
    """Per arm: documents and tokens, their share of raw's, tokens per document, tokens trained on, epochs."""
    base = study.summary(f"tokens/{baseline(study)}")
    table = []
    for name, arm in study.config["arm"].items():
        tokens = study.summary(f"tokens/{name}")
        kept = {key: tokens.get(key) for key in ("documents", "tokens", "utf8_bytes")}
        trained = [about for seed in study.config["seeds"] if (about := training(study, f"pretrain/{name}/seed{seed}"))]
        table.append(
            {
                "arm": name,
                "kind": arm["kind"],
                **kept,
                "document_retention": _ratio(kept["documents"], base.get("documents")),
                "token_retention": _ratio(kept["tokens"], base.get("tokens")),
                "tokens_per_document": _ratio(kept["tokens"], kept["documents"]),
                "trained_tokens": trained[0]["tokens"] if trained else None,
                "epochs": fmean(about["epochs"] for about in trained) if trained else None,
            }
        )
    return table


def compared_metrics(study: Study, runs: list[Run], ledger: Ledger, base: str | None) -> list[dict[str, Any]]:
    """Per evaluated task, the study's chosen one first, and for their average: curves of the arms, and their savings.

    {task, metric, label, higher_is_better, curves: see `curve_values`, matched: {arm: compare's answer}}; matched holds
    the arms compared with the baseline (`prox_hpc.report.matched.compare`).
    """
    evaluation = study.config["evaluation"]
    known = {task: metric for task in evaluation["tasks"] if (metric := metric_of(task, runs))}
    curves = {
        task: {arm: line for arm in study.arms() if (line := finite_curve(runs, arm, task, name))}
        for task, (name, _, _) in known.items()
    }
    averaged = [task for task, (_, _, higher) in known.items() if higher]
    if len(averaged) > 1 and not means(study, runs):
        known[AVERAGE] = ("mean", f"mean of {len(averaged)} tasks", True)
        lines = {arm: [curves[task][arm] for task in averaged if arm in curves[task]] for arm in study.arms()}
        whole = {arm: average(own) for arm, own in lines.items() if len(own) == len(averaged)}
        curves[AVERAGE] = {arm: line for arm, line in whole.items() if line}
    charged = {arm: accounts(study, ledger, base, arm) for arm in study.arms()} if base else {}
    return [
        {
            "task": task,
            "metric": name,
            "label": label,
            "higher_is_better": higher,
            "curves": {arm: curve_values(line, study, ledger, arm) for arm, line in curves[task].items()},
            "matched": {
                arm: compare(curves[task][base], line, higher, charged[arm])
                for arm, line in curves[task].items()
                if base in curves[task] and arm != base
            },
        }
        for task, (name, label, higher) in sorted(known.items(), key=lambda item: item[0] != evaluation["metric"])
    ]


def finite_curve(runs: list[Run], arm: str, task: str, metric: str) -> Curve | None:
    """An arm's curve without the checkpoints that `not_finite` names; None when no score is left."""
    line = curve([run for run in runs if run.arm == arm], task, metric)
    return line.finite() if line else None


def not_finite(runs: list[Run], metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores left out since they are no finite numbers (a perplexity that overflowed): {arm, seed, task, step}."""
    return [
        {"arm": run.arm, "seed": run.seed, "task": metric["task"], "step": entry["step"]}
        for metric in metrics
        for run in runs
        for entry in checkpoints(run)
        if not math.isfinite(scores_of(entry, metric["task"]).get(metric["metric"], 0.0))
    ]


def means(study: Study, runs: list[Run]) -> list[str]:
    """The evaluated tasks that are means of other evaluated ones."""
    tasks = study.config["evaluation"]["tasks"]
    return [group for group, members in groups(runs).items() if group in tasks and set(members) <= set(tasks)]


def curve_values(line: Curve, study: Study, ledger: Ledger, arm: str) -> dict[str, Any]:
    """{flops, mean, low, high, seeds, hours, charged_flops}; low and high are the extremes over the seeds.

    hours: of training to each checkpoint, null when not known. charged_flops: with what the arm is charged beside.
    """
    scores = line.scores()
    rate, charge = ledger.per_flop(arm, "hours"), arm_charge(study, ledger, arm, "flops")
    return {
        "flops": line.flops.tolist(),
        "mean": scores.mean(axis=0).tolist(),
        "low": scores.min(axis=0).tolist(),
        "high": scores.max(axis=0).tolist(),
        "seeds": scores.tolist(),
        "hours": (line.flops * rate).tolist() if rate else None,
        "charged_flops": [value + charge.at(value) for value in line.flops.tolist()] if charge else None,
    }


def score_table(study: Study, runs: list[Run], metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Final scores: per arm and task the mean over seeds, the standard deviation (null with one seed), the seeds."""
    averaged = [metric for metric in metrics if metric["higher_is_better"] and metric["task"] != AVERAGE]
    table = []
    for arm in study.arms():
        own = furthest([run for run in runs if run.arm == arm])
        finals = {run.seed: checkpoints(run)[-1]["scores"] for run in own}
        for metric in metrics:
            parts = averaged if metric["task"] == AVERAGE else [metric]
            by_seed = {
                seed: fmean(scores[part["task"]][part["metric"]] for part in parts)
                for seed, scores in finals.items()
                if all(math.isfinite(scores.get(part["task"], {}).get(part["metric"], math.nan)) for part in parts)
            }
            values = list(by_seed.values())
            table.append(
                {
                    "arm": arm,
                    "task": metric["task"],
                    "metric": metric["metric"],
                    "mean": fmean(values) if values else None,
                    "sd": stdev(values) if len(values) > 1 else None,
                    "seeds": {str(seed): value for seed, value in by_seed.items()},
                }
            )
    return table


def refiner_about(study: Study) -> dict[str, Any]:
    """{name, parameters: {doc, chunk}} of the study's refiner; {} without one."""
    if "refine" not in study.roles:
        return {}
    models = {stage: refiner_model(study, stage) for stage in ("doc", "chunk")}
    sizes = {stage: model.parameters if model else None for stage, model in models.items()}
    return {"name": study.config["refiner"]["name"], "parameters": sizes}


def programs(study: Study) -> dict[str, Any]:
    """The refine step's counts: documents by outcome, doc and chunk programs by status, reasons; {} when missing."""
    summary = study.summary("refine")
    return {key: summary[key] for key in ("documents", "programs", "reasons", "failures") if key in summary}


def _ratio(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None
