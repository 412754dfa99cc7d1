"""report.json: everything the report says, as plain data, from whatever the study has published.

The HTML page and the terminal summary only lay out what stands here. Nothing is assumed complete: an absent figure is
null, and what is missing is listed with its reason.
"""

import time
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any

import yaml

from prox_hpc.report.collect import Run, Study, checkpoints, curve, first_last, load_json, metric_of
from prox_hpc.report.flops import Row, refining_cost
from prox_hpc.report.headline import headline
from prox_hpc.report.matched import Curve, compare
from prox_hpc.train.flops import inference_flops


def build(study: Study) -> dict[str, Any]:
    """The report's content; keys are documented at the functions that make them."""
    runs = study.runs()
    missing = study.missing()
    rows = ledger(study, runs)
    base = baseline(study)
    metrics = compared_metrics(study, runs, rows, base)
    report = {
        "name": study.config["name"],
        "created": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "complete": not missing,
        "baseline": base,
        "arm": refined_arm(study),
        "arms": arm_table(study),
        "metrics": metrics,
        "scores": score_table(study, runs, metrics),
        "refiner": study.summary("score"),
        "programs": programs(study),
        "ledger": [asdict(row) for row in rows],
        "refining_flops": refining_cost(rows, doc=True, chunk=True),
        "missing": missing,
        "skipped": skipped_tasks(runs),
        "evidence": evidence(study, runs),
        "config": yaml.safe_dump(study.config, sort_keys=False, allow_unicode=True),
        "versions": study.versions() | {"server": server_version(study) or "not recorded"},
    }
    return report | {"headline": headline(report)}


def baseline(study: Study) -> str | None:
    """The arm others are compared with: the first `raw` one."""
    return next((name for name, arm in study.config["arm"].items() if arm["kind"] == "raw"), None)


def refined_arm(study: Study) -> str | None:
    """The arm of the headline: `prox_dc`, or the first refined one."""
    refined = [name for name, arm in study.config["arm"].items() if arm["kind"] == "refined"]
    return "prox_dc" if "prox_dc" in refined else next(iter(refined), None)


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


def training(study: Study, role: str) -> dict[str, Any]:
    """What a training run (roles `adapt`, `pretrain/...`) recorded of itself; {} when missing."""
    folder = study.artifact(role)
    path = folder / ("refiner.json" if role == "adapt" else "run.json") if folder else None
    if path is None or not path.exists():
        return {}
    about: dict[str, Any] = load_json(path)
    return about.get("training", about)


def compared_metrics(study: Study, runs: list[Run], rows: list[Row], base: str | None) -> list[dict[str, Any]]:
    """Per evaluated task, the study's chosen one first: curves of the arms, and each arm's savings over the baseline.

    {task, metric, label, higher_is_better, curves: {arm: {flops, mean, low, high, seeds}}, matched: {arm: ...}}; low
    and high are the extremes over the seeds, matched is `prox_hpc.report.matched.compare`'s answer.
    """
    evaluation = study.config["evaluation"]
    tasks = sorted(evaluation["tasks"], key=lambda name: name != evaluation["metric"])
    found = []
    for task in tasks:
        metric = metric_of(task, runs)
        if metric is None:
            continue
        name, label, higher = metric
        curves = {
            arm: line
            for arm in study.arms()
            if (line := curve([run for run in runs if run.arm == arm], task, name)) is not None
        }
        found.append(
            {
                "task": task,
                "metric": name,
                "label": label,
                "higher_is_better": higher,
                "curves": {arm: curve_values(line) for arm, line in curves.items()},
                "matched": {
                    arm: compare(curves[base], line, higher, cost=arm_cost(study, rows, arm))
                    for arm, line in curves.items()
                    if base in curves and arm != base
                },
            }
        )
    return found


def arm_cost(study: Study, rows: list[Row], arm: str) -> float | None:
    """FLOPs of refining charged to an arm: of the passes it uses, for a refined one; none for the others."""
    settings = study.config["arm"][arm]
    if settings["kind"] != "refined":
        return 0.0
    return refining_cost(rows, doc=settings["doc"], chunk=settings["chunk"])


def curve_values(line: Curve) -> dict[str, Any]:
    scores = line.scores()
    return {
        "flops": line.flops.tolist(),
        "mean": scores.mean(axis=0).tolist(),
        "low": scores.min(axis=0).tolist(),
        "high": scores.max(axis=0).tolist(),
        "seeds": scores.tolist(),
    }


def score_table(study: Study, runs: list[Run], metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Final scores: per arm and task the mean over seeds, the standard deviation (null with one seed), the seeds."""
    table = []
    for arm in study.arms():
        for metric in metrics:
            finals = {
                run.seed: scored[-1]["scores"][metric["task"]][metric["metric"]]
                for run in runs
                if run.arm == arm and (scored := checkpoints(run)) and metric["task"] in scored[-1]["scores"]
            }
            values = list(finals.values())
            table.append(
                {
                    "arm": arm,
                    "task": metric["task"],
                    "metric": metric["metric"],
                    "mean": fmean(values) if values else None,
                    "sd": stdev(values) if len(values) > 1 else None,
                    "seeds": {str(seed): value for seed, value in finals.items()},
                }
            )
    return table


def ledger(study: Study, runs: list[Run]) -> list[Row]:
    """All stages of the study that compute, each with its FLOPs, or with a note why it has none."""
    given = study.config["refiner"].get("doc_model")
    rows = []
    if "refine" in study.roles:
        rows = [refiner_row(study, given), *pass_rows(study)]
    rows.append(Row("filtering, executing, tokenising", 0.0, note="no model runs"))
    for arm in study.arms():
        trained = [training(study, f"pretrain/{arm}/seed{seed}") for seed in study.config["seeds"]]
        rows.append(_training_row("pre-training", [about for about in trained if about], len(trained), arm))
    return [*rows, evaluation_row(study, runs)]


def refiner_row(study: Study, given: str | None) -> Row:
    """SFT of the refiner made here (from scratch: there is no base); a given refiner's making is not counted."""
    if given:
        return Row("refiner training", 0.0, refining=True, note=f"{given} was given; its making is not counted")
    about = training(study, "adapt")
    row = _training_row("SFT of the refiner", [about] if about else [], 1, None)
    note = row.note or "from scratch, on gold labels: no base model and no annotator to count"
    return Row(**(asdict(row) | {"refining": True, "note": note}))


def _training_row(stage: str, runs: list[dict[str, Any]], planned: int, arm: str | None) -> Row:
    if not runs:
        return Row(stage, None, arm=arm, note="not trained yet")
    return Row(
        stage,
        sum(run["flops"] for run in runs),
        exact=sum(run["exact_flops"] for run in runs),
        tokens=sum(run["tokens"] for run in runs),
        parameters=runs[0]["parameters"]["minus_one_embedding"],
        arm=arm,
        note=f"{len(runs)} of {planned} runs" if planned > 1 else "",
    )


def _pilot_row(study: Study, pilot: dict[str, Any]) -> Row:
    """The doc pass over the pilot sample that set the threshold."""
    tokens, model = pilot["tokens"]["doc_prefill"], refiner_model(study, "doc")
    if model is None:
        note = "the refiner's size is unknown; set refiner.parameters"
        return Row("doc pass, pilot", None, tokens=tokens, refining=True, note=note)
    flops = inference_flops(prefill=tokens, requests=pilot["documents"]["scored"], **model)
    exact = flops.exact if "layers" in model else None
    parameters = model["parameters"]
    return Row("doc pass, pilot", flops.kaplan, exact=exact, tokens=tokens, parameters=parameters, refining=True)


def pass_rows(study: Study) -> list[Row]:
    """Doc pass and chunk pass, prefill and decode, from the refine step's token counts."""
    summary = study.summary("refine")
    if not summary:
        return [Row("refining", None, refining=True, note="not refined yet")]
    tokens, statuses = summary["tokens"], summary["programs"]
    requests = {
        "doc": statuses["doc"].get("ok", 0),
        "chunk": sum(n for status, n in statuses["chunk"].items() if status not in ("oversized", "no_program")),
    }
    rows = []
    if pilot := study.summary("pilot"):
        rows.append(_pilot_row(study, pilot))
    for stage in ("doc", "chunk"):
        prefill, decode = tokens[f"{stage}_prefill"], tokens[f"{stage}_decode"]
        model = refiner_model(study, stage)
        if not prefill:
            continue
        for part, count in (("prefill", prefill), ("decode", decode)):
            if not count:
                continue
            if model is None:
                note = "the refiner's size is unknown; set refiner.parameters"
                rows.append(Row(f"{stage} pass, {part}", None, tokens=count, refining=True, note=note))
                continue
            reading = inference_flops(prefill=prefill, requests=requests[stage], **model)
            both = inference_flops(prefill=prefill, decode=decode, requests=requests[stage], **model)
            kaplan, exact = (
                (reading.kaplan, reading.exact)
                if part == "prefill"
                else (both.kaplan - reading.kaplan, both.exact - reading.exact)
            )
            rows.append(
                Row(
                    f"{stage} pass, {part}",
                    kaplan,
                    exact=exact if "layers" in model else None,
                    tokens=count,
                    parameters=model["parameters"],
                    refining=True,
                )
            )
    return rows


def refiner_model(study: Study, stage: str) -> dict[str, Any] | None:
    """Arguments of `inference_flops` for the model of a stage: its size, and its shape when it was made here."""
    made = training(study, "adapt")
    if made:
        shape = study.config["refiner"]["shape"]
        return {
            "parameters": made["parameters"]["minus_one_embedding"],
            "layers": shape["num_hidden_layers"],
            "hidden": shape["hidden_size"],
            "head": shape["vocab_size"] * shape["hidden_size"],
            "tied": shape["tie_word_embeddings"],
        }
    recorded = study.summary("refine").get("parameters", {}).get(stage) or {}
    size = (
        study.config["refiner"].get("parameters")
        or recorded.get("minus_one_embedding")
        or recorded.get("non_embedding")
    )
    return {"parameters": size} if size else None


def evaluation_row(study: Study, runs: list[Run]) -> Row:
    """2 N per token sent through the trainees while scoring them."""
    flops, tokens, scored = 0.0, 0, 0
    for run in runs:
        about = training(study, f"pretrain/{run.arm}/seed{run.seed}")
        if not run.evaluate or not about:
            continue
        count = sum(entry["forward_tokens"] for entry in checkpoints(run))
        flops += 2 * about["parameters"]["minus_one_embedding"] * count
        tokens, scored = tokens + count, scored + 1
    note = f"{scored} of {len(runs)} runs"
    return Row("evaluation", flops if scored else None, tokens=tokens or None, note=note)


def programs(study: Study) -> dict[str, Any]:
    """The refine step's counts: documents by outcome, doc and chunk programs by status, reasons; {} when missing."""
    summary = study.summary("refine")
    return {key: summary[key] for key in ("documents", "programs", "reasons", "failures") if key in summary}


def skipped_tasks(runs: list[Run]) -> dict[str, str]:
    """Evaluation tasks that could not run, with the reason."""
    return {
        name: reason
        for run in runs
        if run.evaluate
        for name, reason in load_json(run.evaluate / "scores.json")["skipped"].items()
    }


def server_version(study: Study) -> str | None:
    """What the SGLang server said of itself, as the refine tasks recorded it."""
    version: str | None = study.summary("refine").get("server_version")
    return version


def evidence(study: Study, runs: list[Run]) -> dict[str, Any]:
    """That it really ran: the server's own version, documents in and out per corpus, losses and checkpoints per run."""
    trained = []
    for role in ["adapt", *(f"pretrain/{run.arm}/seed{run.seed}" for run in runs)]:
        folder, about = study.artifact(role), training(study, role)
        if folder is None or not about:
            continue
        losses = first_last(folder / "losses.jsonl")
        trained.append(
            {
                "run": role,
                "steps": about["steps"],
                "tokens": about["tokens"],
                "first_loss": losses[0]["loss"] if losses else None,
                "last_loss": losses[1]["loss"] if losses else None,
                "seconds": about["seconds"],
                "tokens_per_second": about["tokens_per_second"],
                "checkpoints": [str(path) for path in sorted(folder.glob("checkpoints/step-*"))]
                or [str(path) for path in [folder / "model"] if path.exists()],
            }
        )
    return {"server": server_version(study), "trained": trained, "corpora": accounts(study)}


def accounts(study: Study) -> list[dict[str, Any]]:
    """Per corpus made from the study's: its blocks, documents read, and what became of them, added up over blocks.

    balanced: in every block, documents read = kept + dropped + failed.
    """
    found = []
    for role in ["refine", *(f"arm/{arm}" for arm in study.arms())]:
        folder = study.artifact(role)
        blocks = [block_account(load_json(path)) for path in sorted(folder.glob("blocks/*.json"))] if folder else []
        if blocks and all(blocks):
            sums = {key: sum(block[key] for block in blocks) for key in blocks[0]}
            balanced = all(block["documents"] == block["kept"] + block["dropped"] + block["failed"] for block in blocks)
            found.append({"role": role, "blocks": len(blocks), **sums, "balanced": balanced})
    return found


def block_account(counts: dict[str, Any]) -> dict[str, int]:
    """{documents, kept, dropped, failed} of a block's JSON; {} when it does not record what became of documents."""
    if "in" in counts:  # refine
        return {"documents": counts["in"], **{key: counts[key] for key in ("kept", "dropped", "failed")}}
    if "outcomes" in counts:  # execute
        lost = {key: counts["outcomes"][key] for key in ("dropped", "failed")}
        return {"documents": counts["documents_in"], "kept": counts["documents"], **lost}
    if "dropped" in counts:  # filter: counts by reason, and `documents_in` are those that could be read
        dropped, failed = (sum(counts[key].values()) for key in ("dropped", "failed"))
        read = counts["documents_in"] + failed
        return {"documents": read, "kept": counts["documents"], "dropped": dropped, "failed": failed}
    return {}


def _ratio(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None
