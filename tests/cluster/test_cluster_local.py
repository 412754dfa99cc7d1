"""The local backend: order, reuse, failure of a part, two launchers at once. The steps are real ones, small."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prox_hpc.cluster.local import LocalRun
from prox_hpc.config import Cluster, Resources
from prox_hpc.publish import publish_json
from prox_hpc.study.plan import Plan
from prox_hpc.study.store import artifact_dir, state_dir, task_states
from prox_hpc.task import Step

GENERATE = Step("generate", "web", {"documents": 30, "blocks": 3, "seed": 5, "sites": "test"}, tasks=3)
FILTER = Step("filter", "short", {"rules": ["fineweb"]}, {"corpus": GENERATE.address})
TOKENIZER = Step("tokenizer", "bpe", {"vocab_size": 1200}, {"corpus": GENERATE.address})
BROKEN = Step("filter", "broken", {"rules": ["no_such_rule"]}, {"corpus": GENERATE.address})
AFTER_BROKEN = Step("tokenizer", "after", {"vocab_size": 1201}, {"corpus": BROKEN.address})


def run(store: Path, *steps: Step) -> tuple[bool, LocalRun]:
    local = LocalRun(Plan(steps), store, Cluster(slots=2, resources={"default": Resources(cpus=1)}))
    return local.run(lambda _: None), local


def test_a_dag_runs_in_order_and_a_second_time_reuses_all(tmp_path: Path) -> None:
    fine, local = run(tmp_path, GENERATE, FILTER, TOKENIZER)
    assert fine
    assert {item.state for item in local.runs.values()} == {"done"}
    assert (artifact_dir(tmp_path, TOKENIZER) / "artifact.json").exists()
    fine, local = run(tmp_path, GENERATE, FILTER, TOKENIZER)
    assert fine
    assert {item.state for item in local.runs.values()} == {"reused"}


def test_a_failure_blocks_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    fine, local = run(tmp_path, GENERATE, BROKEN, AFTER_BROKEN, TOKENIZER)
    assert not fine
    states = {address: item.state for address, item in local.runs.items()}
    assert states[BROKEN.address] == "failed"
    assert states[AFTER_BROKEN.address] == "blocked"
    assert states[TOKENIZER.address] == "done"
    assert "no_such_rule" in local.failure(local.runs[BROKEN.address])


@pytest.mark.parametrize(("slots", "scored"), [(2, True), (1, False)])
def test_checkpoints_are_evaluated_while_training_runs_where_there_is_room(
    tmp_path: Path, slots: int, scored: bool
) -> None:
    training = {"tokens": 20 * 512, "batch_tokens": 512, "checkpoints": 2}
    pretrain = Step("pretrain", "raw", {"training": training}, {"tokens": "tokenize/absent-0"})  # so it fails
    early = {"early": "pretrain"}
    evaluate = Step("evaluate", "raw", {}, {"pretrain": pretrain.address}, tasks=2, runtime=early)
    for step in (10, 20):  # exported by an attempt before
        publish_json(artifact_dir(tmp_path, pretrain) / f"checkpoints/step-{step:06d}/checkpoint.json", {})
    publish_json(state_dir(tmp_path, evaluate) / "checkpoints/step-000010.json", {})  # its score: nothing to compute
    local = LocalRun(Plan((pretrain, evaluate)), tmp_path, Cluster(slots=slots))
    assert not local.run(lambda _: None)
    assert [item.state for item in local.runs.values()] == ["failed", "blocked"]
    states = [state.get("state") for state in task_states(tmp_path, evaluate)]
    assert states == ["done" if scored else None, None]


def test_no_more_tasks_at_once_than_slots(tmp_path: Path) -> None:
    most = 0

    def look(local: LocalRun) -> None:
        nonlocal most
        most = max(most, sum(len(item.running) for item in local.runs.values()))

    steps = [Step("generate", f"web{i}", {"documents": 5, "blocks": 1, "seed": i, "sites": "test"}) for i in range(5)]
    LocalRun(Plan(tuple(steps)), tmp_path, Cluster(slots=2)).run(look)
    assert most == 2


SCRIPT = """
import sys
from pathlib import Path
from prox_hpc.cluster.local import LocalRun
from prox_hpc.config import Cluster
from prox_hpc.study.plan import Plan
from prox_hpc.task import Step
step = Step("generate", "big", {"documents": 20000, "blocks": 8, "seed": 5, "sites": "test"})
local = LocalRun(Plan((step,)), Path(sys.argv[1]), Cluster(slots=1))
print(local.run(lambda _: None), local.runs[step.address].state)
"""
BIG = Step("generate", "big", {"documents": 20000, "blocks": 8, "seed": 5, "sites": "test"})


def test_tasks_die_with_the_launcher_and_the_next_launch_goes_on(tmp_path: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    blocks = artifact_dir(tmp_path, BIG) / "blocks"
    while not list(blocks.glob("[0-9]*.parquet")):
        time.sleep(0.1)
        assert launcher.poll() is None
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    time.sleep(0.5)
    begun = {path.name: path.stat().st_ino for path in blocks.glob("[0-9]*.parquet")}
    assert not (artifact_dir(tmp_path, BIG) / "artifact.json").exists()
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "done"]
    after = {path.name: path.stat().st_ino for path in blocks.glob("[0-9]*.parquet")}
    assert begun.items() <= after.items(), "a published block was written again"
    assert len(after) == 8


def test_two_launchers_do_not_do_the_same_step_twice(tmp_path: Path) -> None:
    both = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = sorted(process.communicate(timeout=120)[0].split()[1] for process in both)
    assert told == ["done", "reused"]
    assert os.listdir(state_dir(tmp_path, BIG) / "logs") == ["0.log"]
