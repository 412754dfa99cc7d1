"""Where the servers of a task sit: which GPU, which cores, what share of the memory each gets."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from prox_hpc.config import Serve
from prox_hpc.errors import UserError

ALL_SERVERS = 0.85
"""Share of a device's memory for several servers when none is set; one alone is left to SGLang's own choice."""


@dataclass(frozen=True)
class Seat:
    """One server's place. gpu: a CUDA_VISIBLE_DEVICES entry. memory: its share of the whole device's memory."""

    model: str
    gpu: str | None
    memory: float | None
    cores: frozenset[int] | None


def seats(models: Sequence[str], serve: Serve, gpus: Sequence[str | None], cores: Sequence[int]) -> list[Seat]:
    """`serve.replicas` servers of every model on every GPU (gpus=[None]: without any), cores shared out evenly.

    Neighbouring cores go to one server: they share a socket, and the two threads of one core are numbered far apart.
    With fewer cores than servers nothing is pinned.
    """
    places = [(gpu, model) for gpu in gpus for _ in range(serve.replicas) for model in models]
    each = serve.replicas * len(models)
    total = serve.mem_fraction
    if total is None and each > 1 and gpus[0] is not None:
        total = ALL_SERVERS
    memory = None if total is None else total / each
    pinned = serve.pin_cores and len(cores) >= len(places)
    found = []
    for number, (gpu, model) in enumerate(places):
        first, end = (len(cores) * k // len(places) for k in (number, number + 1))
        found.append(Seat(model, gpu, memory, frozenset(cores[first:end]) if pinned else None))
    return found


def visible_gpus(serve: Serve) -> list[str | None]:
    """The task's GPUs as CUDA_VISIBLE_DEVICES names them; [None] on another device. UserError when there is none."""
    if serve.device != "cuda":
        return [None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        try:
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            listed = ""
        visible = ",".join(str(number) for number, _ in enumerate(_gpu_lines(listed)))
    gpus: list[str | None] = [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    if not gpus:
        raise UserError(
            "refiner.serve.device=cuda: no GPU here (CUDA_VISIBLE_DEVICES, nvidia-smi -L); ask for one with "
            "cluster.resources.refine.gpus, or set refiner.serve.device=cpu"
        )
    return gpus


def _gpu_lines(listed: str) -> list[str]:
    return [line for line in listed.splitlines() if line.startswith("GPU ")]  # MIG slices stand below, indented
