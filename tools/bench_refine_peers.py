"""The peers of `bench_refine.py`, each in its own process and environment: a bare `sglang.Engine`, and datatrove.

datatrove's environment is made here (`peer_environment`): a venv with the datatrove of our own lock and the light part
of its `inference` extra (without aiofiles and aiosqlite every document is lost with only a warning; vllm and a second
sglang are left out), which finds torch and the rest behind it in our environment, and SGLang where our server does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_refine_datatrove import Spec

from prox_hpc.config import Serve
from prox_hpc.serve.server import choose_port, command, environment

TOOLS = Path(__file__).parent
_PINS = ("aiofiles", "aiosqlite", "httpx")
_NEEDED = ("device", "attention-backend", "sampling-backend", "dtype", "max-total-tokens", "mem-fraction-static")
"""Flags without which SGLang does not serve this model on this machine; all others are datatrove's or SGLang's own."""


def server_arguments(model: Path, serve: Serve) -> list[str]:
    """The arguments with which a refine task starts its server, without the file that holds the key."""
    arguments = command(str(model), serve, choose_port(None), Path("unused"))
    return arguments[arguments.index("--model-path") :]


def bare_engine(model: Path, serve: Serve, work: Path, stages: Sequence[str], log: Path) -> dict[str, Any]:
    """Stage -> seconds and tokens, see `bench_refine_engine`."""
    result = log.with_suffix(".json")
    python = serve.command or [sys.executable]
    arguments = [str(TOOLS / "bench_refine_engine.py"), str(work), str(result), *stages, "--"]
    _run([*python, *arguments, *server_arguments(model, serve)], environment(str(model), serve), log)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def server_flags(model: Path, serve: Serve, tuned: bool) -> dict[str, Any]:
    """SGLang's flags for datatrove (`model_kwargs`): all of our server's if tuned, else only the needed."""
    flags: dict[str, Any] = {}
    name = ""
    for argument in server_arguments(model, serve):
        if argument.startswith("--"):
            name = argument.removeprefix("--")
            flags[name] = True
        else:
            flags[name] = argument
    unwanted = ("model-path", "host", "port")
    return {key: value for key, value in flags.items() if key not in unwanted and (tuned or key in _NEEDED)}


def peer_environment(folder: Path) -> Path:
    """The Python of datatrove's venv, made on first use."""
    python = folder / "datatrove" / "bin" / "python"
    if not (folder / "datatrove" / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / "datatrove")], check=True)
        site = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
        own = Path(subprocess.run(site, check=True, capture_output=True, text=True).stdout.strip())
        (own / "behind.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", "--ignore-installed", "--no-deps"]
        subprocess.run([*install, f"datatrove=={version('datatrove')}", *_PINS], check=True)
        (folder / "datatrove" / "complete").touch()
    return python


def datatrove(python: Path, spec: Spec, serve: Serve, log: Path) -> dict[str, Any]:
    """Run one datatrove job; RuntimeError when documents were lost."""
    path = log.with_suffix(".spec.json")
    path.write_text(json.dumps(asdict(spec)))
    env = environment(spec.model, serve)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(TOOLS.parent)]))
    env["PATH"] = f"{python.parent}:{env['PATH']}"  # it starts its server with `python3`
    printed = _run([str(python), str(TOOLS / "bench_refine_datatrove.py"), str(path)], env, log)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    if found["came_out"] + found["dropped"] != spec.documents:
        raise RuntimeError(f"datatrove lost documents: {found}; see {log}")
    return found


def _run(arguments: Sequence[str], env: dict[str, str], log: Path) -> str:
    """-> what it printed; RuntimeError with its last lines when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        done = subprocess.run(arguments, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)
    if done.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise RuntimeError(f"{arguments[1]} ended with status {done.returncode}; see {log}:\n{last}")
    return done.stdout
