"""What a study's steps took of the cluster: GPU-hours, CPU-hours, energy.

From Slurm's accounting where Slurm ran them: what was allocated, for as long as it was, all attempts included, be they
requeued, failed or of an earlier launch. Otherwise by the wall clock: seconds of each task's newest attempt (its status
file) times what the configuration gave it. Which of the two it was is said with every figure.
"""

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prox_hpc.config import Cluster, Resources
from prox_hpc.report.collect import Study

FIELDS = ("JobID", "ElapsedRaw", "AllocTRES", "ConsumedEnergyRaw", "JobName")  # JobName last: it may hold anything
LINE = re.compile(r"([^|]+)\|(\d*)\|([^|]*)\|([^|]*)\|(.*)")  # of FIELDS
UNKNOWN = 2**62  # Slurm writes what it does not know as numbers just below 2**64
SLURM, CLOCK = "sacct", "wall clock"
TIMEOUT_S = 120


@dataclass(frozen=True)
class Usage:
    """Hours of GPUs and CPU cores held; energy of the whole nodes' share in kWh, None where the nodes report none."""

    gpu_hours: float
    cpu_hours: float
    kwh: float | None
    source: str

    def share(self, part: float) -> "Usage":
        kwh = None if self.kwh is None else part * self.kwh
        return Usage(part * self.gpu_hours, part * self.cpu_hours, kwh, self.source)


def total(usages: Sequence[Usage | None]) -> Usage | None:
    """The sum; None when there is nothing or any is unknown. Its energy is None when any is."""
    known = [usage for usage in usages if usage is not None]
    if not known or len(known) < len(usages):
        return None
    energy = [usage.kwh for usage in known if usage.kwh is not None]
    return Usage(
        sum(usage.gpu_hours for usage in known),
        sum(usage.cpu_hours for usage in known),
        sum(energy) if len(energy) == len(known) else None,
        " and ".join(sorted({usage.source for usage in known})),
    )


@dataclass(frozen=True)
class Allocation:
    """One attempt of one job. job: its id, of an array the array's. joules: None when not measured."""

    job: str
    name: str
    seconds: float
    gpus: int
    cpus: int
    joules: float | None = None


def parse_sacct(text: str) -> tuple[list[Allocation], int]:
    """Allocations in `sacct -D -n -P -o FIELDS`, and how many lines were not of that form.

    Without -X, since on some sites only a job's steps have its energy. Steps run at the same time (`batch` around the
    numbered ones) and each reads the counters of its nodes, so a job's energy is that of the step which has most.
    """
    jobs: list[Allocation] = []
    odd = 0
    for line in filter(str.strip, text.splitlines()):
        found = LINE.fullmatch(line)
        if found is None:
            odd += 1
            continue
        identity, seconds, tres, joules, name = found.groups()
        given = _resources(tres)
        energy = _joules(joules) or _joules(given.get("energy", ""))
        if "." not in identity:
            job = re.split(r"[_+]", identity)[0]
            jobs.append(Allocation(job, name, float(seconds or 0), _gpus(given), int(given.get("cpu", 0)), energy))
        elif jobs and energy:  # a step of the job above it
            jobs[-1] = replace(jobs[-1], joules=max(energy, jobs[-1].joules or 0.0))
    return jobs, odd


def _resources(tres: str) -> dict[str, str]:
    """`cpu=2,gres/gpu=1,gres/gpu:a100=1,energy=9` as a dict, without what is no whole number (mem=4G)."""
    pairs = (item.partition("=") for item in tres.split(","))
    return {name: amount for name, _, amount in pairs if amount.isdecimal()}


def _gpus(given: dict[str, str]) -> int:
    """`gres/gpu` is the sum; sites that account types only have `gres/gpu:TYPE`."""
    typed = sum(int(count) for name, count in given.items() if name.startswith("gres/gpu:"))
    return int(given.get("gres/gpu", typed))


def _joules(text: str) -> float | None:
    """None for 0 as well: that is what a node without an energy plugin reports."""
    value = float(text) if text.replace(".", "", 1).isdigit() else 0.0
    return value if 0 < value < UNKNOWN else None


def of_allocations(allocations: Iterable[Allocation]) -> Usage:
    """What they held while they ran; those that never began count for nothing."""
    rows = [row for row in allocations if row.seconds]
    energy = [row.joules for row in rows if row.joules is not None]
    return Usage(
        sum(row.gpus * row.seconds for row in rows) / 3600,
        sum(row.cpus * row.seconds for row in rows) / 3600,
        sum(energy) / 3.6e6 if rows and len(energy) == len(rows) else None,
        SLURM,
    )


def of_statuses(statuses: Iterable[dict[str, Any]], ask: Resources, device: str) -> Usage | None:
    """By the wall clock; None when no task has begun. On a GPU that nothing asked for, each rank held one."""
    ran = [seconds(status) for status in statuses]
    if not ran:
        return None
    hours = sum(ran) / 3600
    gpus = ask.nodes * ask.gpus or (ask.nodes * ask.processes if device == "cuda" else 0)
    return Usage(gpus * hours, ask.nodes * ask.processes * ask.cpus * hours, None, CLOCK)


def seconds(status: dict[str, Any]) -> float:
    """How long the newest attempt of a task ran, or has been running."""
    ended = status.get("updated", 0.0)
    return float(status.get("seconds", ended - status.get("started", ended)))


def ask_sacct(jobs: Iterable[str]) -> tuple[list[Allocation], str]:
    """(allocations of these jobs, why there are none)."""
    wanted = sorted(set(jobs))
    if not wanted:
        return [], "no Slurm job ran it"
    command = ["sacct", "-D", "-n", "-P", "-o", ",".join(FIELDS), "-j", ",".join(wanted)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except FileNotFoundError:
        return [], "there is no sacct here"
    except subprocess.TimeoutExpired:
        return [], f"sacct did not answer in {TIMEOUT_S} s"
    if answer.returncode:
        return [], f"sacct failed: {(answer.stderr.strip().splitlines() or ['without a word'])[0]}"
    found, odd = parse_sacct(answer.stdout)
    unread = f"{odd} lines of sacct could not be read" if odd else ""
    return found, unread or ("" if found else "sacct knows none of its jobs")


def belonging(allocations: Iterable[Allocation], jobs: set[str], name: str) -> list[Allocation]:
    """Those of a step (`kind:name`) among its jobs, with its seal's and successors'.

    The name must fit as well: ids begin anew where accounting was wiped.
    """
    return [a for a in allocations if a.job in jobs and (a.name == name or a.name.startswith(f"{name}:"))]


def used(study: Study) -> tuple[dict[str, Usage | None], str]:
    """(usage of each step by address, why accounting was not the source of some; "" when it was of all)."""
    jobs = {address: study.jobs(address) for address in study.steps}
    allocations, why = ask_sacct(job for found in jobs.values() for job in found)
    cluster = Cluster(resources={kind: Resources(**given) for kind, given in study.resources.items()})
    usages: dict[str, Usage | None] = {}
    lacking = []
    for address, step in study.steps.items():
        own = belonging(allocations, jobs[address], f"{step['kind']}:{step['name']}")
        held, statuses = [row for row in own if row.seconds], list(study.statuses(address))
        # a job is held for longer than its task runs; sacct counts whole seconds
        whole = sum(row.seconds + 1 for row in held) >= sum(seconds(status) for status in statuses)
        if held and whole:
            usages[address] = of_allocations(own)
            continue
        usages[address] = of_statuses(statuses, cluster.ask(step["kind"]), study.device(address))
        lacking += [f"{step['kind']}:{step['name']}"] if held else []
    gone = f"sacct has no records of some tasks of {', '.join(lacking)}" if lacking else ""
    return usages, "; ".join(filter(None, (why, gone)))
