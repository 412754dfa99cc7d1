"""The Slurm backend: queues a study's whole DAG with submitit and returns.

Every step becomes one job or array, `afterok` on the seals of its inputs and with `kill-on-invalid-dep`, so that what
depends on a failure is cancelled and not left pending for ever; every array is followed by a one-task seal, `afterany`
on it, whose exit status says whether the step is complete. With `cluster.successors` a leased step has a second array,
`afternotok` on the first, which takes the blocks that tasks without a requeue left. The report is `afterany` on
everything. A step that another study has queued already is claimed in the store and depended upon by its recorded job.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm.slurm import _make_sbatch_string

from prox_hpc.cluster import early, worker
from prox_hpc.config import Cluster, Resources
from prox_hpc.errors import UserError
from prox_hpc.publish import publish_json, replace_json
from prox_hpc.stop import WARNING
from prox_hpc.study.plan import Plan
from prox_hpc.study.store import forget_failures, is_published, state_dir, stored_tasks, task_states, write_step
from prox_hpc.task import Step

SEAL = Resources(mem_gb=2, time_min=30)
# How often a task that ran out of time is requeued. One that takes blocks as they come, or saves the state of its
# training when it is warned, gets further each time.
TIMEOUTS, FURTHER_TIMEOUTS = 3, 100
TRAINING = ("adapt", "pretrain")
SUBMITTING_STALE_S = 60  # a launcher that claimed a step and died before submitting it


@dataclass(frozen=True)
class Queued:
    """How a step stands after launch: `jobs` are what dependents wait for (empty when published)."""

    step: Step
    jobs: tuple[str, ...]
    note: str  # queued | reused | shared


@dataclass(frozen=True)
class SlurmTask(submitit.helpers.Checkpointable):
    """One task as submitit runs it; pre-empted or out of time, it is requeued and goes on from what is published."""

    requeue: bool

    def __call__(self, step_file: str, index: int) -> None:
        with early.releasing(Path(step_file)):
            worker.run_task(step_file, index, _submitits_requeue if self.requeue else None)
        # It is done. A warning while Python shuts down, when handlers are gone already, would fail the job (seen).
        signal.signal(WARNING, signal.SIG_IGN)


def _submitits_requeue() -> None:
    """submitit's handler writes its checkpoint, calls `scontrol requeue` and exits; it raises when it may not."""
    signal.raise_signal(WARNING)


def check_slurm(cluster: Cluster) -> None:
    """Raises UserError where Slurm's commands are missing or its controller does not answer."""
    for command in ("sbatch", "squeue", "srun"):
        if shutil.which(command) is None:
            raise UserError(
                f"cluster.backend=slurm: `{command}` is not on PATH; run launch on a login node of the cluster, "
                "start the development cluster (slurm/devcluster.sh start), or use cluster=local"
            )
    answer = subprocess.run(["sinfo", "-h", "-o", "%R"], capture_output=True, text=True, timeout=60)
    if answer.returncode:
        raise UserError(
            f"cluster.backend=slurm: the controller does not answer ({answer.stderr.strip().splitlines()[:1]}); "
            "try `sinfo`, or start the development cluster (slurm/devcluster.sh start)"
        )
    partitions = set(answer.stdout.split())
    if cluster.partition and not set(cluster.partition.split(",")) <= partitions:
        raise UserError(
            f"cluster.partition={cluster.partition}: there is none; Slurm knows {', '.join(sorted(partitions))}"
        )


def submit(plan: Plan, store: Path, cluster: Cluster, run_dir: Path) -> list[Queued]:
    """Queue what is not published; -> one entry per step, in plan order. Raises UserError when sbatch refuses a job."""
    queued: dict[str, Queued] = {}
    for step in plan:
        if is_published(store, step):
            queued[step.address] = Queued(step, (), "reused")
            continue
        # A queued job that waits for an earlier attempt at its input is doomed when that input is queued anew.
        anew = step.always or any(queued[address].note == "queued" for address in step.inputs.values())
        claim = _claim(store, step, run_dir, share=not anew)
        if claim:
            queued[step.address] = Queued(step, tuple(claim), "shared")
            continue
        try:
            jobs = _submit_step(step, store, cluster, queued, run_dir)
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
            raise UserError(
                f"sbatch refused {step.address}: {reason}; mend it and launch again: what is queued already is kept"
            ) from error
        queued[step.address] = Queued(step, (jobs[-1],), "queued")
    return list(queued.values())


def _submit_step(step: Step, store: Path, cluster: Cluster, queued: dict[str, Queued], run_dir: Path) -> list[str]:
    """-> ids of the step's jobs, recorded in its claim; the last one is what dependents wait for.

    When anything goes wrong, nothing of the step stays queued and the claim is given up.
    """
    shares = stored_tasks(store, step)
    step_file = str(write_step(store, step))
    states = task_states(store, step)
    if shares not in (None, step.tasks) and not step.leased:
        states = [{} for _ in states]  # cut into other shares, the tasks of an earlier launch did other parts
    indices = [i for i, state in enumerate(states[: step.tasks]) if state.get("state") != "done"]
    if forget_failures(store, step) or not indices:
        indices = list(range(step.tasks))
    for index in {*indices, *range(step.tasks, len(states))}:  # statuses of an earlier attempt are not this one's
        (state_dir(store, step) / "tasks" / f"{index:05d}.json").unlink(missing_ok=True)
    ask, wait = cluster.ask(step.kind), _dependency(step, queued)
    jobs: list[str] = []
    claim = state_dir(store, step) / "claim.json"
    try:
        with submitit.helpers.clean_env():
            jobs.append(_array(_executor(step, store, cluster, ask, wait), cluster, step_file, indices))
            if extra := _successors(step, cluster):
                executor = _executor(step, store, cluster, ask, _after_failure(wait, jobs[0]), "successors")
                jobs.append(_array(executor, cluster, step_file, extra))
            if step.tasks > 1 or extra:
                seal = _executor(step, store, cluster, SEAL, _after_all(wait, ":".join(jobs)), "seal")
                jobs.append(seal.submit(worker.run_seal, step_file).job_id)
        if wait:
            early.follow(store, step, jobs[0], indices)
        replace_json(claim, {"jobs": jobs, "run": str(run_dir), "time": time.time()})
    except BaseException:
        cancel(jobs)
        claim.unlink(missing_ok=True)
        raise
    return jobs


def _array(executor: submitit.SlurmExecutor, cluster: Cluster, step_file: str, indices: list[int]) -> str:
    """Submit these tasks of a step; -> the job's id."""
    array = executor.map_array(SlurmTask(cluster.requeue), [step_file] * len(indices), indices)
    return array[0].job_id.split("_")[0]


def _successors(step: Step, cluster: Cluster) -> list[int]:
    """Indices of the tasks that run once the array has failed in part; only leased blocks can be taken over."""
    return list(range(step.tasks, step.tasks + cluster.successors)) if step.leased else []


def _dependency(step: Step, queued: dict[str, Queued]) -> dict[str, Any]:
    addresses = list(queued) if step.always else list(step.inputs.values())
    jobs = sorted({job for address in addresses for job in queued[address].jobs})
    if not jobs:
        return {}
    kind = "afterany" if step.always else "afterok"
    return {"dependency": f"{kind}:{':'.join(jobs)}", "kill-on-invalid-dep": "yes"}


def _after_failure(wait: dict[str, Any], job: str) -> dict[str, Any]:
    """For successors: the step's inputs are there (`wait`), and some task of `job` failed; otherwise cancelled."""
    both = ",".join(filter(None, [wait.get("dependency"), f"afternotok:{job}"]))
    return {"dependency": both, "kill-on-invalid-dep": "yes"}


def _after_all(wait: dict[str, Any], jobs: str) -> dict[str, Any]:
    """For the seal: `jobs` are over, however they ended; where its inputs (`wait`) failed it is cancelled too."""
    both = ",".join(filter(None, [wait.get("dependency"), f"afterany:{jobs}"]))
    return {**wait, "dependency": both}


def _parameters(step: Step, cluster: Cluster, ask: Resources, wait: dict[str, Any], part: str) -> dict[str, Any]:
    """submitit's Slurm parameters (sbatch option names) for one job of a step; part: "", `successors` or `seal`."""
    setup = [f"export {key}={shlex.quote(value)}" for key, value in cluster.environment.items()]
    setup += [f"module load {module}" for module in cluster.modules] + cluster.setup
    setup += [f"export OMP_NUM_THREADS={ask.cpus}", "umask 077"]
    extra: dict[str, Any] = {**cluster.sbatch, **wait}
    if cluster.account:
        extra["account"] = cluster.account
    if cluster.qos:
        extra["qos"] = cluster.qos
    extra["requeue" if cluster.requeue else "no-requeue"] = True
    parameters: dict[str, Any] = {
        "job_name": ":".join(filter(None, [step.kind, step.name, part])),
        "time": ask.time_min,
        "nodes": ask.nodes,
        "ntasks_per_node": 1 if part == "seal" else max(1, step.processes // ask.nodes),
        "cpus_per_task": ask.cpus,
        "mem": f"{int(ask.mem_gb * 1024)}M",
        "array_parallelism": cluster.array_parallelism,
        "setup": setup,
        "additional_parameters": extra,
        "stderr_to_stdout": True,
        "signal_delay_s": cluster.grace_s,
        "srun_args": ["--kill-on-bad-exit=1"],  # a dead rank must not leave the others waiting for it
    }
    if ask.gpus:
        parameters["gpus_per_node"] = ask.gpus
    if cluster.partition:
        parameters["partition"] = cluster.partition
    return parameters


def _python(cluster: Cluster) -> str:
    return " ".join(filter(None, [cluster.container, shlex.quote(cluster.python or sys.executable)]))


def _executor(
    step: Step, store: Path, cluster: Cluster, ask: Resources, wait: dict[str, Any], part: str = ""
) -> submitit.SlurmExecutor:
    folder = state_dir(store, step) / "logs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    timeouts = FURTHER_TIMEOUTS if step.leased or step.kind in TRAINING else TIMEOUTS
    executor = submitit.SlurmExecutor(folder=folder / "%j", python=_python(cluster), max_num_timeout=timeouts)
    executor.update_parameters(**_parameters(step, cluster, ask, wait, part))
    return executor


def sbatch_scripts(plan: Plan, store: Path, cluster: Cluster) -> dict[str, str]:
    """For a dry run: script name -> the sbatch text; dependencies are named by address instead of job id."""
    scripts = {}
    for step in plan:
        command = f"{_python(cluster)} -u -m submitit.core._submit {state_dir(store, step) / 'logs' / '%j'}"
        others = list(step.inputs.values()) if not step.always else ["every other step"]
        kind = "afterany" if step.always else "afterok"
        wait = {"dependency": f"{kind}:<{', '.join(others)}>", "kill-on-invalid-dep": "yes"} if others else {}
        ask = cluster.ask(step.kind)
        folder = state_dir(store, step) / "logs" / "%j"
        extra = len(_successors(step, cluster))
        jobs = [("", ask, wait, step.tasks)]
        if extra:
            jobs.append(("successors", ask, _after_failure(wait, f"<{step.address}>"), extra))
        if step.tasks > 1 or extra:
            both = f"<{step.address}>" + (f":<{step.address} (successors)>" if extra else "")
            jobs.append(("seal", SEAL, _after_all(wait, both), 1))
        for part, need, after, tasks in jobs:
            parameters = _parameters(step, cluster, need, after, part)
            parameters |= {"map_count": tasks} if tasks > 1 else {}
            name = step.address + (f" ({part})" if part else "")
            scripts[name] = _make_sbatch_string(command, folder, **parameters)
    return scripts


def alive_jobs() -> set[str]:
    """Ids (array ids for arrays) of the user's jobs that are queued or running; completing ones are over."""
    user = os.environ.get("USER") or str(os.getuid())
    answer = subprocess.run(["squeue", "-h", "-u", user, "-o", "%F %T"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in answer.stdout.splitlines()]
    return {job for job, state in rows if state != "COMPLETING"}


def _claim(store: Path, step: Step, run_dir: Path, share: bool) -> list[str]:
    """Claim a step for this launch: -> [] when it is ours to submit, else the job that already works on it.

    share: a living job of another launch may do it for us; otherwise such a job is cancelled.
    """
    path = state_dir(store, step) / "claim.json"
    mine = {"submitting": os.getpid(), "run": str(run_dir), "time": time.time()}
    while not publish_json(path, mine):
        claim = read_claim(store, step)
        if not claim:
            continue  # given up just now
        if "submitting" in claim and time.time() - claim["time"] < SUBMITTING_STALE_S:
            time.sleep(0.5)
            continue
        living = set(claim.get("jobs", [])) & alive_jobs()
        if living and share and claim["jobs"][-1] in living:
            return [claim["jobs"][-1]]
        _take_over(path, claim)
        cancel(sorted(living))
    return []


def _take_over(path: Path, judged: dict[str, Any]) -> None:
    """Remove a claim that was judged to be over; another launch's fresh one, put there in between, stays.

    Only the holder of the token beside it removes a claim, so what it reads there is what it removes.
    """
    token = path.with_name("claim.over")
    if not publish_json(token, {"time": time.time()}):
        with suppress(FileNotFoundError):
            if time.time() - token.stat().st_mtime > SUBMITTING_STALE_S:  # its holder died
                token.unlink()
        time.sleep(0.05)
        return
    try:
        with suppress(FileNotFoundError):  # its owner gave it up
            if json.loads(path.read_text()) == judged:
                path.unlink()
    finally:
        token.unlink(missing_ok=True)


def read_claim(store: Path, step: Step) -> dict[str, Any]:
    """The claim on a step ({} when there is none)."""
    try:
        return json.loads((state_dir(store, step) / "claim.json").read_text())
    except FileNotFoundError:
        return {}


def job_states(jobs: list[str]) -> dict[str, list[str]]:
    """Slurm's states of jobs by (array) id, from accounting: {"12": ["COMPLETED", "FAILED"], ...}."""
    if not jobs:
        return {}
    command = ["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(jobs)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if answer.returncode:
        raise UserError(f"sacct failed: {answer.stderr.strip()}; is Slurm accounting running?")
    states: dict[str, list[str]] = {}
    for line in answer.stdout.splitlines():
        job, state = line.split("|")[:2]
        states.setdefault(job.split("_")[0], []).append(state.split()[0])
    return states


def cancel(jobs: list[str]) -> None:
    """scancel; jobs that are over already are not an error."""
    if jobs:
        subprocess.run(["scancel", *jobs], check=True)
