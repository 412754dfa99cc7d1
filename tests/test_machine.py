"""What a task ran on and with."""

from pathlib import Path

from prox_hpc import __version__
from prox_hpc.machine import machine, versions


def test_the_nodes_gpus_and_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 9454\nmodel name\t: other\n")
    assert machine(tmp_path).endswith(" cores of AMD EPYC 9454")
    nvidia = tmp_path / "driver" / "nvidia"
    for number in range(2):
        (nvidia / "gpus" / f"0000:0{number}").mkdir(parents=True)
        (nvidia / "gpus" / f"0000:0{number}" / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 5\n")
    assert machine(tmp_path).startswith("2 NVIDIA H100 80GB HBM3, ")
    said = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs@host)\n"
    (nvidia / "version").write_text(said)
    assert machine(tmp_path).startswith("2 NVIDIA H100 80GB HBM3 (driver 570.86.15), ")


def test_a_kernel_that_tells_nothing(tmp_path: Path) -> None:
    assert " cores of " in machine(tmp_path)


def test_versions_name_what_results_depend_on() -> None:
    found = versions()
    assert found["prox_hpc"] == __version__
    assert {"python", "torch", "transformers", "sglang", "deepspeed", "hydra-core", "submitit", "cuda"} <= set(found)
    assert all(found.values())
