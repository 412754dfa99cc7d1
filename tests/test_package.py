"""The package: light at start-up, whole in a wheel, and strict about what may import what."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "sglang", "transformers", "deepspeed", "datatrove", "lm_eval")
LOWER = {  # what the steps' rooms may import; see docs/design.md
    "programs": set(),
    "corpus": {"programs"},
    "serve": {"programs"},
    "train": {"programs", "corpus"},
    **dict.fromkeys(  # noqa: RUF024
        ("refine", "refiner", "pretrain", "evaluate", "report"), {"serve", "train", "programs", "corpus"}
    ),
    "inspection": {"programs", "corpus", "refine"},
    "cluster": {"study"},
    "study": {"cluster"},
}


@pytest.mark.parametrize("module", ["launch", "status", "cancel", "report.summary"])
def test_the_front_doors_import_nothing_heavy(module: str) -> None:
    code = f"import sys, prox_hpc.{module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_holds_the_configuration_and_works_from_any_folder(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*command, str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    for path in [*(ROOT / "conf").rglob("*.yaml")]:
        assert (site / "prox_hpc" / "conf" / path.relative_to(ROOT / "conf")).exists()
    for path in [p for p in (ROOT / "prox_hpc").rglob("*") if p.is_file() and "__pycache__" not in p.parts]:
        assert (site / "prox_hpc" / path.relative_to(ROOT / "prox_hpc")).exists(), f"{path} is not in the wheel"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    code = f"import prox_hpc.launch as l; assert l.conf_dir().startswith({str(site)!r}), l.conf_dir()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", env=environment)
    done = subprocess.run(
        [sys.executable, "-m", "prox_hpc.launch", "dry_run=true", f"output={tmp_path}/out"],
        cwd="/", env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "refine/web-nano" in done.stdout


def test_rooms_import_only_downwards() -> None:
    for path in (ROOT / "prox_hpc").rglob("*.py"):
        room = path.relative_to(ROOT / "prox_hpc").parts[0]
        if room not in LOWER or path.name == "__main__.py":  # a command is a front door, as launch.py is
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "prox_hpc" and len(parts) > 1 and parts[1] in LOWER and parts[1] != room:
                    assert parts[1] in LOWER[room], f"{path} imports {name}"


def test_nothing_evaluates_text() -> None:
    for path in (ROOT / "prox_hpc").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile"), f"{path}:{node.lineno}"
