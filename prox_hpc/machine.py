"""What a task ran on and with, told without a heavy import: the node's GPUs and processor, versions of packages."""

import os
import platform
import runpy
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import prox_hpc

RECORDED_VERSIONS = (
    "torch",
    "transformers",
    "tokenizers",
    "sglang",
    "deepspeed",
    "lm_eval",
    "datatrove",
    "pyarrow",
    "numpy",
    "scikit-learn",
    "hydra-core",
    "submitit",
)


def versions() -> dict[str, str]:
    """Of this project, Python, `RECORDED_VERSIONS` and the CUDA that torch was built for; `not installed` for absent
    ones."""
    found = {"prox_hpc": prox_hpc.__version__, "python": platform.python_version()}
    for package in RECORDED_VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"cuda": _cuda()}


def _cuda() -> str:
    """As torch's own version file says, since torch takes seconds to import."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return "not installed"
    built_for = runpy.run_path(str(Path(torch.origin).with_name("version.py")))["cuda"]
    return str(built_for or "none: torch was built for CPUs")


def machine(proc: Path = Path("/proc")) -> str:
    """The node, as `8 NVIDIA H100 80GB HBM3 (driver 570.86.15), 64 cores of AMD EPYC 9454`."""
    gpus = Counter(_field(path, "Model") for path in sorted(proc.glob("driver/nvidia/gpus/*/information")))
    told = [f"{number} {model}" for model, number in gpus.items()]
    driver = _field(proc / "driver/nvidia/version", "NVRM version")
    if told and (numbers := [word for word in driver.split() if word.count(".") >= 1 and word[0].isdigit()]):
        told[-1] += f" (driver {numbers[0]})"
    processor = _field(proc / "cpuinfo", "model name") or platform.processor() or platform.machine()
    return ", ".join([*told, f"{os.cpu_count()} cores of {processor}"])


def _field(path: Path, name: str) -> str:
    """The value of the first line `name: value` of one of the kernel's files; "" where there is none."""
    if not path.exists():
        return ""
    for line in path.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
