"""That it really ran, and where to look: servers, documents in and out, losses, steps with their hours and logs."""

from collections.abc import Mapping
from typing import Any

from prox_hpc.report.collect import Run, Study, evaluation, first_last, load_json
from prox_hpc.report.ledger import training
from prox_hpc.report.usage import SLURM, Usage


def skipped_tasks(runs: list[Run]) -> dict[str, str]:
    """Evaluation tasks that could not run, with the reason."""
    return {name: reason for run in runs for name, reason in evaluation(run).get("skipped", {}).items()}


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
                "mfu": about.get("mfu"),
                "memory_gb": about.get("memory_gb"),
                "checkpoints": [str(path) for path in sorted(folder.glob("checkpoints/step-*"))]
                or [str(path) for path in [folder / "model"] if path.exists()],
            }
        )
    return {"server": server_version(study), "trained": trained, "corpora": documents(study)}


def documents(study: Study) -> list[dict[str, Any]]:
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


def step_table(study: Study, usages: Mapping[str, Usage | None]) -> list[dict[str, Any]]:
    """Per step: its state, hours and where these are from, Slurm jobs, logs (absolute paths, the 20 newest, last)."""
    waiting = {item["step"]: item["state"] for item in study.missing()}
    table = []
    for address, step in study.steps.items():
        if step["kind"] == "report":
            continue
        usage = usages[address] or Usage(0.0, 0.0, None, "")
        jobs = sorted(study.jobs(address)) if usage.source == SLURM else []
        logs = [str(path) for path in study.logs(address)[-20:]]
        table.append(
            {
                "step": address,
                "state": waiting.get(address, "done"),
                "tasks": step["tasks"],
                "gpu_hours": usage.gpu_hours,
                "cpu_hours": usage.cpu_hours,
                "kwh": usage.kwh,
                "hours_from": usage.source,
                "jobs": jobs,
                "folder": str(study.store / "steps" / address),
                "logs": logs,
            }
        )
    return table
