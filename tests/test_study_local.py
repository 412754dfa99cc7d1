"""A whole tiny study on this machine: every part is real, and the report carries the evidence that it ran."""

import json
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.study.store import artifact_dir, load_run, state_dir
from tests.conftest import Command, run_module


@pytest.fixture(scope="module")
def report(tiny_study: Path) -> Any:
    return json.loads((tiny_study / "report" / "report.json").read_text())


def artifacts(run: Path, kind: str) -> list[dict[str, Any]]:
    config, steps = load_run(run)
    folders = [artifact_dir(Path(config["store"]), step) for step in steps if step.kind == kind]
    return [json.loads((folder / "artifact.json").read_text()) for folder in folders]


def test_every_step_is_published_and_the_report_is_whole(tiny_study: Path, report: Any) -> None:
    config, steps = load_run(tiny_study)
    for step in steps:
        assert step.always or (artifact_dir(Path(config["store"]), step) / "artifact.json").exists()
    assert (tiny_study / "report" / "report.html").stat().st_size > 10_000
    assert not report["missing"]


def test_the_server_was_a_real_sglang(tiny_study: Path) -> None:
    (refine,) = artifacts(tiny_study, "refine")
    assert refine["summary"]["server_version"] == "0.5.23"


def test_no_document_is_lost_or_doubled(tiny_study: Path) -> None:
    config, _ = load_run(tiny_study)
    (refine,) = artifacts(tiny_study, "refine")
    documents = refine["summary"]["documents"]
    assert documents["in"] == config["corpus"]["documents"]
    assert documents["in"] == documents["kept"] + documents["dropped"] + documents["failed"]


def test_deepspeed_trained_every_arm_and_seed(tiny_study: Path) -> None:
    config, steps = load_run(tiny_study)
    runs = [step for step in steps if step.kind == "pretrain"]
    assert len(runs) == len(config["arm"]) * len(config["seeds"])
    for step in runs:
        folder = artifact_dir(Path(config["store"]), step)
        losses = [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]
        assert losses[-1] < losses[0]
        checkpoints = sorted(folder.glob("checkpoints/step-*/model.safetensors"))
        assert len(checkpoints) == config["trainee"]["training"]["checkpoints"]
    (adapt,) = artifacts(tiny_study, "adapt")
    assert "deepspeed" in adapt["versions"]


def test_every_checkpoint_was_evaluated_by_lm_eval(tiny_study: Path) -> None:
    config, steps = load_run(tiny_study)
    for step in (step for step in steps if step.kind == "evaluate"):
        scores = json.loads((artifact_dir(Path(config["store"]), step) / "scores.json").read_text())
        checkpoints = scores["checkpoints"] if isinstance(scores, dict) else scores
        assert len(checkpoints) == config["trainee"]["training"]["checkpoints"]
        assert all({"world_bpb", "world_cloze"} <= set(item["scores"]) for item in checkpoints)


def test_status_shows_everything_done(tiny_study: Path) -> None:
    done = run_module("prox_hpc.status", tiny_study, "--json")
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in json.loads(done.stdout)} == {"done"}
    assert "refine/web-nano" in run_module("prox_hpc.status", tiny_study).stdout


def test_launching_again_reuses_everything(tiny_study: Path, launch: Command) -> None:
    config, steps = load_run(tiny_study)
    store = Path(config["store"])
    before = {step.address: (artifact_dir(store, step) / "artifact.json").stat().st_mtime_ns for step in steps[:-1]}
    done = launch("scale=tiny", f"output={tiny_study.parents[1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" reused") >= len(steps) - 1
    after = {step.address: (artifact_dir(store, step) / "artifact.json").stat().st_mtime_ns for step in steps[:-1]}
    assert before == after


def test_progress_is_told_in_plain_lines_where_there_is_no_terminal(tiny_study: Path) -> None:
    log = (tiny_study.parents[1] / "launch.log").read_text()
    assert "\x1b[" not in log
    assert "documents" in log
    assert "report:" in log


def test_a_lost_artifact_is_made_again_and_nothing_else(tiny_study: Path, launch: Command) -> None:
    config, steps = load_run(tiny_study)
    store = Path(config["store"])
    lost = next(step for step in steps if step.kind == "score")
    (artifact_dir(store, lost) / "artifact.json").unlink()
    done = launch("scale=tiny", f"output={tiny_study.parents[1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" reused") == len(steps) - 2
    assert (artifact_dir(store, lost) / "artifact.json").exists()
    assert (state_dir(store, lost) / "logs").is_dir()


def test_another_study_may_not_take_the_run_folder(tiny_study: Path, launch: Command) -> None:
    done = launch("scale=tiny", f"output={tiny_study.parents[1]}", "corpus.seed=9999")
    assert done.returncode == 2
    assert "9999" in done.stderr
