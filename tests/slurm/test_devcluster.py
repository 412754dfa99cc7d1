"""slurm/devcluster.sh gives a Slurm that behaves: arrays, exit codes, accounting, losing and regaining a node."""

import contextlib
import re
import subprocess
import time
from pathlib import Path

import pytest

NODES = ["n1", "n2", "n3", "n4"]


def node_states(slurm) -> dict[str, str]:
    lines = slurm.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N|%T").stdout.split()
    return dict(line.split("|") for line in lines)


def command_lines() -> set[bytes]:
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.add(file.read_bytes())
    return found


def wait_until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_all_nodes_are_up_and_start_is_idempotent(dev_slurm):
    dev_slurm.verb("start")
    status = dev_slurm.verb("status")
    assert "4 of 4 nodes up" in status.stdout
    assert sorted(node_states(dev_slurm)) == NODES
    shape = dev_slurm.run("sinfo", "-h", "-p", "main", "-o", "%R %c %m %G").stdout.split()
    assert shape == ["main", "4", "6000", "gpu:4"]
    assert dev_slurm.run("sinfo", "-h", "-o", "%P").stdout.split() == ["main*", "preempt"]


def test_servers_listen_on_loopback_only(dev_slurm):
    ports = {int(port) for port in re.findall(r"Port=(\d+)", dev_slurm.run("scontrol", "-o", "show", "nodes").stdout)}
    config = dev_slurm.run("scontrol", "show", "config").stdout
    ports |= {int(port) for port in re.findall(r"(?:SlurmctldPort|AccountingStoragePort)\s*= (\d+)", config)}
    assert len(ports) == 6
    listening = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state = line.split()[:4]
        address, port = local.split(":")
        if state == "0A":
            listening.setdefault(int(port, 16), set()).add(address)
    assert {port: listening.get(port) for port in ports} == {port: {"0100007F"} for port in ports}


def test_array_runs_with_distinct_gpus_and_a_failing_task_is_failed(dev_slurm, tmp_path):
    job = dev_slurm.sbatch(
        "--array=0-5%4", "--gres=gpu:1", "--mem=100", "-o", tmp_path / "%a.out",
        "--wrap", 'echo $CUDA_VISIBLE_DEVICES; sleep 1; [ $SLURM_ARRAY_TASK_ID != 3 ] || exit 7',
    )  # fmt: skip
    assert dev_slurm.finished(job, tasks=6) == {f"{job}_{i}": "FAILED" if i == 3 else "COMPLETED" for i in range(6)}
    assert (f"{job}_3", "FAILED", "7:0") in dev_slurm.history(job)
    assert {(tmp_path / f"{i}.out").read_text().strip() for i in range(4)} == {"0", "1", "2", "3"}


def test_srun_spans_the_nodes(dev_slurm):
    out = dev_slurm.run("srun", "-N4", "-n4", "--mem=100", "sh", "-c", "echo $SLURMD_NODENAME").stdout
    assert sorted(out.split()) == NODES


def test_a_killed_node_fails_its_job_which_runs_again_elsewhere(dev_slurm, tmp_path):
    script = 'echo "$SLURMD_NODENAME $SLURM_RESTART_COUNT"; [ -n "$SLURM_RESTART_COUNT" ] || env -i /bin/sleep 54321'
    log = tmp_path / "out"
    job = dev_slurm.sbatch("--requeue", "--open-mode=append", "-o", log, "--wrap", script)
    node = dev_slurm.node_of(job)
    wait_until(lambda: b"/bin/sleep\x0054321\0" in command_lines())
    try:
        dev_slurm.verb("kill-node", node)
        assert node_states(dev_slurm)[node] == "down"
        assert dev_slurm.verb("status", check=False).returncode == 1
        # Killed with it: even a process that the job started with another environment.
        assert b"/bin/sleep\x0054321\0" not in command_lines()
        assert dev_slurm.finished(job) == {job: "COMPLETED"}
    finally:
        dev_slurm.verb("revive-node", node)
    assert [state for _, state, _ in dev_slurm.history(job)] == ["NODE_FAIL", "COMPLETED"]
    first, second = log.read_text().splitlines()
    assert first == f"{node} "
    assert second.endswith(" 1")
    assert not second.startswith(node)
    dev_slurm.verb("status")


def test_the_example_prologue_prepares_a_job(dev_slurm, tmp_path):
    prologue = dev_slurm.script.parent / "sites" / "example_prologue.sh"
    script = tmp_path / "job.sh"
    script.write_text(f"""#!/bin/bash
set -eu
source {prologue}
srun -n2 sh -c 'test -d "$TMPDIR" && echo $HF_HUB_OFFLINE $OMP_NUM_THREADS'
rmdir "$TMPDIR"
""")
    job = dev_slurm.sbatch("-o", tmp_path / "out", "-e", tmp_path / "err", "-N2", "-n2", "-c2", "--mem=200", script)
    states = dev_slurm.finished(job)
    assert (states, (tmp_path / "out").read_text()) == ({job: "COMPLETED"}, "1 2\n1 2\n")


@pytest.mark.parametrize(
    ("words", "environment", "says"),
    [
        (["kill-node", "n9"], {}, "no node 'n9'; it is one of: n1 n2 n3 n4"),
        (["start"], {"PROX_SLURM_CPUS": "3"}, "restart"),
        (["start"], {"PROX_SLURM_BASE": "/var/lib/prox-slurm-other"}, "stop it first"),
        (["start"], {"PROX_SLURM_MEM_MB": "lots"}, "is not a whole number"),
        (["wipe"], {"PROX_SLURM_BASE": "/etc"}, "was not made by this script"),
    ],
)
def test_refusals_are_one_line_with_a_remedy(dev_slurm, words, environment, says):
    done = subprocess.run([dev_slurm.script, *words], env=dev_slurm.env | environment, text=True, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    dev_slurm.verb("status")


def test_needs_root(dev_slurm):
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    # By standard input: the checkout may lie where only root can read.
    done = dev_slurm.run(*nobody, "bash", "-s", "stop", check=False, stdin=dev_slurm.script.read_text())
    assert done.returncode == 2
    assert "needs root" in done.stderr
