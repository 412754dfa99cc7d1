"""`python -m prox_hpc.cancel RUN`: stop a study; what is published stays, and launching again goes on from there.

Only jobs this run submitted are cancelled: a step it shares with another study belongs to the study that queued it.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from prox_hpc.errors import EXIT_USER_ERROR, UserError
from prox_hpc.study.store import load_run


def cancel(run: Path) -> str:
    """Cancel what of the run is queued or running; -> what was done, for the user."""
    config, steps = load_run(run)
    if config["cluster"]["backend"] == "slurm":
        from prox_hpc.cluster import slurm

        claims = [slurm.read_claim(Path(config["store"]), step) for step in steps]
        jobs = [job for claim in claims if claim.get("run") == str(run.resolve()) for job in claim.get("jobs", [])]
        alive = slurm.alive_jobs()
        jobs = [job for job in jobs if job in alive]
        slurm.cancel(jobs)
        return f"cancelled {len(jobs)} jobs of {run}"
    pid_file = run / "launcher.pid"
    if not pid_file.exists():
        return f"{run}: nothing is running"
    pid = int(pid_file.read_text())
    command = Path(f"/proc/{pid}/cmdline")
    if not command.exists() or b"prox_hpc" not in command.read_bytes():
        return f"{run}: its launcher (pid {pid}) is gone already"
    os.kill(pid, signal.SIGINT)
    return f"{run}: told its launcher (pid {pid}) to stop"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m prox_hpc.cancel", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path, help="run folder, e.g. outputs/runs/quickstart")
    given = parser.parse_args(arguments)
    try:
        print(cancel(given.run))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
