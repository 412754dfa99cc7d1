"""How a study stands, read from the disk (and from Slurm's accounting for its jobs): rows, table, JSON.

Reads only; works while the study runs, after it died, and from any login node.
"""

import socket
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from prox_hpc.study.store import is_published, load_run, task_states
from prox_hpc.task import Step

STALE_S = 120
MARK = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "cancelled": "red",
    "stopped": "red",
    "queued": "yellow",
    "waiting": "dim",
}


@dataclass(frozen=True)
class Row:
    """One step's state: waiting | queued | running | done | failed | cancelled | stopped (its tasks are gone).

    helpers: further tasks that began, beside the step's own; `tasks_done` counts only those.
    """

    address: str
    state: str
    tasks: int
    tasks_done: int
    helpers: int = 0
    done: float = 0
    total: float = 0
    unit: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    jobs: tuple[str, ...] = ()
    eta_s: float | None = None

    @property
    def progress(self) -> str:
        """E.g. `40% of 3,000 documents  25 documents/s  eta 1:12`."""
        share = f"{100 * self.done / self.total:.0f}% of {self.total:,.0f} {self.unit}" if self.total else ""
        figures = ", ".join(_figure(key, value) for key, value in self.figures.items())
        left = "" if self.eta_s is None else f"eta {duration(self.eta_s)}"
        return "  ".join(filter(None, [share, figures, left]))


def duration(seconds: float) -> str:
    """75 -> '1:15'."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _figure(key: str, value: Any) -> str:
    """E.g. `25 documents/s`, `3 in flight`, `31% of the prefill roofline`."""
    name = key.replace("_per_second", "/s").replace("_", " ")
    if not isinstance(value, float):
        return f"{value} {name}"
    if key == "prefill_roofline":
        return f"{100 * value:.0f}% of the {name}"
    return f"{value:,.0f} {name}" if abs(value) >= 100 else f"{value:.3g} {name}"


def row(store: Path, step: Step, job_states: dict[str, list[str]], jobs: list[str]) -> Row:
    """The state of one step; `job_states`: Slurm's states of its jobs ({} on one machine)."""
    states = task_states(store, step)
    own, helpers = states[: step.tasks], states[step.tasks :]
    done = sum(state.get("state") == "done" for state in own)
    begun = [state for state in states if state]
    figures: dict[str, Any] = {}
    for state in begun:
        for key, value in state.get("figures", {}).items():
            rate = key.endswith("_per_second") and isinstance(value, (int, float))
            if state["state"] == "running" or not rate:
                figures[key] = figures.get(key, 0) + value if rate else value
    errors = [state["error"] for state in states if state.get("error")]
    errors += [f"interrupted: {state['why']}" for state in states if state.get("state") == "interrupted"]
    now = _state(store, step, begun, done, [s for job in jobs for s in job_states.get(job, [])])
    return Row(
        address=step.address,
        state=now,
        tasks=step.tasks,
        tasks_done=step.tasks if is_published(store, step) else done,
        helpers=len(helpers),
        done=sum(state.get("done", 0) for state in begun),
        total=sum(state.get("total", 0) for state in own) * step.tasks / max(1, sum(map(bool, own))),
        unit=next((state["unit"] for state in begun if "unit" in state), ""),
        figures=figures,
        error=errors[0] if errors else "",
        jobs=tuple(jobs),
        eta_s=_time_left(begun) if now == "running" else None,
    )


def _time_left(states: list[dict[str, Any]]) -> float | None:
    """Seconds until the slowest running task is over, at its own rate so far; None while that is not known."""
    left = []
    for state in states:
        if state["state"] == "running" and state.get("done", 0) > state.get("begun_at", 0):
            rate = (state["done"] - state["begun_at"]) / max(state["updated"] - state["begun"], 1e-3)
            since = time.time() - state["updated"]
            left.append(max(0.0, (state["total"] - state["done"]) / rate - since))
    return max(left, default=None)


def _state(store: Path, step: Step, begun: list[dict[str, Any]], done: int, slurm: list[str]) -> str:
    if is_published(store, step) or (step.always and begun and done == step.tasks):
        return "done"
    living = [s for s in slurm if s in ("PENDING", "RUNNING", "REQUEUED", "SUSPENDED", "COMPLETING", "CONFIGURING")]
    if slurm and not living:
        return (
            "cancelled"
            if "CANCELLED" in slurm and {*slurm} <= {"CANCELLED", "COMPLETED"}
            else "failed"
            if set(slurm) != {"COMPLETED"}
            else "running"
        )
    if any(state["state"] == "failed" for state in begun) and not living:
        return "failed"
    if any(state["state"] == "running" and _alive(state) for state in begun):
        return "running"
    if living:
        return "running" if "RUNNING" in living else "queued"
    if any(state["state"] in ("running", "interrupted") for state in begun):
        return "stopped"
    return "running" if done else "waiting"


def _alive(state: dict[str, Any]) -> bool:
    """Whether the task is there still: its process on this machine, a fresh status from another one."""
    if state["host"] == socket.gethostname():
        return Path(f"/proc/{state['pid']}").exists()
    return time.time() - state["updated"] < STALE_S


def read(run: Path) -> list[Row]:
    """All steps of a run in plan order. Raises UserError when `run` is no run folder."""
    config, steps = load_run(run)
    store = Path(config["store"])
    claims: dict[str, list[str]] = {}
    job_states: dict[str, list[str]] = {}
    if config["cluster"]["backend"] == "slurm":
        from prox_hpc.cluster import slurm  # submitit is not needed to look at a local run

        claims = {step.address: slurm.read_claim(store, step).get("jobs", []) for step in steps}
        job_states = slurm.job_states(sorted({job for jobs in claims.values() for job in jobs}))
    rows = [row(store, step, job_states, claims.get(step.address, [])) for step in steps]
    if config["cluster"]["backend"] == "slurm" or _launcher_lives(run):
        return rows
    # Nobody will start what waits. (A report made by an earlier launch does not make up for it.)
    return [replace(item, state="stopped") if item.state in ("waiting", "running") else item for item in rows]


def _launcher_lives(run: Path) -> bool:
    try:
        return Path(f"/proc/{int((run / 'launcher.pid').read_text())}").exists()
    except (FileNotFoundError, ValueError):
        return False


def table(rows: list[Row], title: str) -> Table:
    """The rows as a terminal table."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in ("step", "state", "tasks", "progress"):
        shown.add_column(column, overflow="fold", no_wrap=column != "progress")
    queue = any(item.jobs for item in rows)
    if queue:
        shown.add_column("job")
    for item in rows:
        tasks = f"{item.tasks_done}/{item.tasks}" + (f" +{item.helpers}" if item.helpers else "")
        cells = [item.address, f"[{MARK[item.state]}]{item.state}[/]", tasks, item.progress]
        shown.add_row(*cells, *([",".join(item.jobs)] if queue else []))
    return shown


def failures(rows: list[Row], store: Path) -> list[str]:
    """For each failed step: why, and where its logs are."""
    return [
        f"{item.address}: {item.error or 'died without a word'}\n  logs: {store / 'steps' / item.address / 'logs'}"
        for item in rows
        if item.state == "failed"
    ]


def to_json(rows: list[Row]) -> list[dict[str, Any]]:
    return [asdict(item) for item in rows]
