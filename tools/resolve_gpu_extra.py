"""Does `pip install 'prox-hpc[gpu]'` resolve? Asks pip, installs nothing, prints JSON. Takes minutes, needs the index.

The extra pins sglang, which pins torch and its CUDA packages; a release that breaks the set shows here first.

    python tools/resolve_gpu_extra.py
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHOWN = ("prox-hpc", "sglang", "torch", "transformers", "xgrammar", "hydra-core", "submitit")


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        report = Path(folder) / "report.json"
        command = [f"{folder}/bin/pip", "install", "--dry-run", "--quiet", "--report", str(report), f"{root}[gpu]"]
        started = time.time()
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            print(json.dumps({"resolves": False, "error": done.stderr.strip().splitlines()[-3:]}))
            return 1
        installed = [item["metadata"] for item in json.loads(report.read_text())["install"]]
        found = {item["name"].lower(): item for item in installed}
    versions = {name: found[name]["version"] for name in SHOWN}
    print(json.dumps({"resolves": True, "packages": len(found), "seconds": round(time.time() - started), **versions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
