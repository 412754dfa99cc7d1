"""Ending early: what Slurm's signals mean to a running step.

Slurm warns a task of its time limit, and of pre-emption where the site has `preempt_send_user_signal`, with SIGUSR2
(submitit's choice) some time ahead; `scancel`, `scontrol requeue` and pre-emption elsewhere send SIGTERM, seconds
before SIGKILL. Here they only set fields, which the step polls between its awaits; a step that polls ends by raising
`Interrupted`. Slurm signals every process of a job, the step's servers too, which have to outlive the warning and would
die of it: so SIGUSR2 is blocked, which children inherit (a handler would not be), and a thread waits for it.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

WARNING, END = signal.SIGUSR2, signal.SIGTERM
SHARE = 0.75  # of the grace time for the step; the rest is for ending servers and for the queue


@dataclass
class Stop:
    """Whether the task shall end early. `deadline` (time.monotonic()): when the step must have raised `Interrupted`."""

    requested: bool = False
    deadline: float | None = None
    reason: str = ""
    warned: bool = False
    """By SIGUSR2: nobody but the task itself puts it back into the queue."""

    def warn(self, grace_s: float) -> None:
        if not self.requested:
            self.deadline = time.monotonic() + SHARE * grace_s
            self.reason = f"{WARNING.name}: time limit or pre-emption"
            self.requested = self.warned = True  # last, since the step looks at it from another thread

    def end(self) -> None:
        """SIGKILL is near: 30 s at most on Slurm (KillWait), 10 s on this machine. What is not published is lost."""
        self.deadline = time.monotonic()
        self.reason = f"{END.name} after {self.reason}" if self.warned else END.name
        self.requested = True


class Interrupted(Exception):
    """Raised by a step that ended early: what it finished is published, its leases are given back."""


@contextmanager
def install(grace_s: float) -> Iterator[Stop]:
    """While it lasts, SIGUSR2 and SIGTERM set the Stop it yields; then all is as before. Main thread only.

    grace_s: seconds between SIGUSR2 and the end. A pre-empting partition's GraceTime may be less and nobody tells the
    task; a step that is killed before its deadline loses the blocks at work, no more.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if number == WARNING:
            stop.warn(grace_s)
        else:
            stop.end()

    def listen() -> None:
        while signal.sigwait({WARNING}) and not over.is_set():
            stop.warn(grace_s)

    over = threading.Event()
    # For SIGUSR2, too: a thread that was there before does not block it.
    before = {number: signal.signal(number, handle) for number in (WARNING, END)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {WARNING})
    listener = threading.Thread(target=listen, name="warning", daemon=True)
    listener.start()
    try:
        yield stop
    finally:
        over.set()
        assert listener.ident is not None
        signal.pthread_kill(listener.ident, WARNING)
        listener.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
