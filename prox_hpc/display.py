"""What launch shows: live progress on a terminal, plain lines elsewhere, the dry run, the queue, the end."""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.syntax import Syntax
from rich.table import Table

from prox_hpc.cluster.local import LocalRun, StepRun
from prox_hpc.config import Config
from prox_hpc.study.plan import Plan
from prox_hpc.study.status import Row, duration, row

if TYPE_CHECKING:
    from prox_hpc.cluster.slurm import Queued

LINE_EVERY_S = 15
MARK = {
    "reused": "[dim]=[/]",
    "done": "[green]+[/]",
    "running": "[cyan]>[/]",
    "failed": "[red]x[/]",
    "blocked": "[red]-[/]",
}


class Display:
    """Shows a local run while it goes on."""

    def __init__(self, local: LocalRun, run: Path, console: Console):
        self.local, self.run, self.console = local, run, console
        self.began = time.time()
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self.told: dict[str, str] = {}
        self.last_line = time.time()

    def __enter__(self) -> "Display":
        self.console.print(f"study of {len(self.local.runs)} steps; run folder {self.run}", soft_wrap=True)
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def tick(self, local: LocalRun) -> None:
        for address, item in local.runs.items():
            if self.told.get(address) != item.state:
                self.told[address] = item.state
                self._changed(address, item)
        running = [item for item in local.runs.values() if item.state == "running"]
        if self.live:
            self.live.update(self._table(running))
        elif time.time() - self.last_line > LINE_EVERY_S:
            self.last_line = time.time()
            for item in running:
                line = f"  > {item.step.address}  {self._row(item).progress}"
                self.console.print(line, soft_wrap=True, highlight=False)

    def _row(self, item: StepRun) -> Row:
        return row(self.local.store, item.step, {}, [])

    def _changed(self, address: str, item: StepRun) -> None:
        """One line for every step that ended (and, without a terminal, for every one that began)."""
        if item.state in ("waiting", "elsewhere", "ready") or (item.state == "running" and self.live):
            return
        took = f" in {duration(item.ended - item.started)}" if item.started and item.ended else ""
        over = sum(run.over for run in self.local.runs.values())
        line = f"{MARK[item.state]} {address} {item.state}{took} [dim]({over}/{len(self.local.runs)})[/]"
        if item.state == "done" and (progress := self._row(item).progress):
            line += f"  [dim]{progress}[/]"
        self.console.print(line, soft_wrap=True, highlight=False)
        if item.state == "failed":
            self.console.print(self.local.failure(item), style="red", soft_wrap=True, highlight=False, markup=False)

    def _table(self, running: list[StepRun]) -> Table:
        over = sum(run.over for run in self.local.runs.values())
        title = f"{over} of {len(self.local.runs)} steps, {duration(time.time() - self.began)}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
        for column in ("step", "tasks", "progress"):
            table.add_column(column, overflow="fold")
        for item in running:
            tasks = f"{item.next_index - len(item.running)}/{item.step.tasks}"
            table.add_row(item.step.address, tasks, self._row(item).progress or "starting")
        return table

    def conclude(self) -> None:
        """The terminal summary of the report, and where it is."""
        report = self.run / "report" / "report.json"
        if report.exists():
            from prox_hpc.report.summary import summary_text

            for part in summary_text(json.loads(report.read_text())):
                self.console.print(part)
        failed = [address for address, item in self.local.runs.items() if item.state in ("failed", "blocked")]
        self.console.print(
            f"\n{len(failed)} of {len(self.local.runs)} steps failed" if failed else "\nall steps done", end=""
        )
        self.console.print(f" in {duration(time.time() - self.began)}", highlight=False)
        if failed:
            self.console.print("mend the cause and launch again: only what is missing is done")
        if report.exists():
            self.console.print(f"report: {report.with_suffix('.html')}", soft_wrap=True, highlight=False)


def print_dry_run(plan: Plan, store: Path, config: Config, console: Console) -> None:
    """The DAG, and on Slurm every sbatch script."""
    from prox_hpc.study.store import is_published

    table = Table(title=f"{config.name}: {len(plan.steps)} steps", title_justify="left", box=None, pad_edge=False)
    for column in ("#", "step", "tasks", "ranks", "after", ""):
        table.add_column(column, overflow="fold")
    number = {step.address: str(i) for i, step in enumerate(plan, 1)}
    for step in plan:
        after = "everything" if step.always else " ".join(number[a] for a in step.inputs.values()) or "-"
        note = "published" if is_published(store, step) else ""
        table.add_row(number[step.address], step.address, str(step.tasks), str(step.processes), after, note)
    console.print(table)
    if config.cluster.backend == "slurm":
        from prox_hpc.cluster.slurm import sbatch_scripts

        for name, text in sbatch_scripts(plan, store, config.cluster).items():
            console.rule(name, align="left")
            console.print(
                Syntax(text, "bash", background_color="default") if console.is_terminal else text,
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    console.print("dry run: nothing was submitted")


def print_queued(queued: list["Queued"], run: Path, console: Console) -> None:
    """What was put into the queue, and how to follow it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("step", "", "job"):
        table.add_column(column, overflow="fold")
    for item in queued:
        table.add_row(item.step.address, item.note, ",".join(item.jobs))
    console.print(table)
    counts = {note: sum(item.note == note for item in queued) for note in ("queued", "shared", "reused")}
    console.print(", ".join(f"{n} steps {note}" for note, n in counts.items() if n), highlight=False)
    console.print(f"follow it:  python -m prox_hpc.status {run}", soft_wrap=True, highlight=False)
    console.print(f"report:     {run}/report/report.html", soft_wrap=True, highlight=False)
