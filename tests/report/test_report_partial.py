"""Evaluations that still run count with the checkpoints they have scored, and the report says so."""

from pathlib import Path
from typing import Any

STUDY = "arm=[raw,prox_dc]"


def test_all_checkpoints_scored_but_not_sealed_gives_the_same_figures(
    fabricate: Any, make_report: Any, unseal: Any
) -> None:
    task = fabricate(overrides=(STUDY,))
    _, sealed = make_report(task)
    for role in [role for role in task.step.inputs if role.startswith("evaluate/")]:
        unseal(task, role, 4)
    folder, report = make_report(task)
    assert report["metrics"] == sealed["metrics"], "from the remembered items, too"
    assert report["scores"] == sealed["scores"]
    assert {run["scored"] for run in report["partial"]} == {4}
    assert report["skipped"] == {"boolq": "no data"}
    assert len((folder / "scores.csv").read_text().splitlines()) == 1 + 2 * 2 * 4 * 4


def test_a_study_in_which_no_evaluation_is_whole_has_curves(fabricate: Any, make_report: Any, unseal: Any) -> None:
    task = fabricate(overrides=(STUDY,))
    for role in [role for role in task.step.inputs if role.startswith("evaluate/")]:
        unseal(task, role, 3)
    folder, report = make_report(task)
    curves = report["metrics"][0]["curves"]
    assert {arm: len(line["flops"]) for arm, line in curves.items()} == {"raw": 3, "prox_dc": 3}
    assert "prox_dc" in report["metrics"][0]["matched"]
    assert report["partial"][0] == {"arm": "raw", "seed": 1, "scored": 3, "of": 4}
    page = (folder / "report.html").read_text()
    assert "raw seed 1: 3 of 4 checkpoints scored" in page
    assert "Nothing to compare yet" not in page


def test_a_seed_still_being_scored_does_not_cut_the_others_short(fabricate: Any, make_report: Any, unseal: Any) -> None:
    task = fabricate(overrides=(STUDY,))
    unseal(task, "evaluate/raw/seed2", 1)
    folder, report = make_report(task)
    raw = report["metrics"][0]["curves"]["raw"]
    assert len(raw["flops"]) == 4
    assert len(raw["seeds"]) == 1
    score = next(row for row in report["scores"] if row["arm"] == "raw")
    assert list(score["seeds"]) == ["1"], "final scores of different checkpoints are not averaged"
    page = (folder / "report.html").read_text()
    assert "raw seed 2: 1 of 4 checkpoints scored" in page
    assert "<td>raw<small>seed 2: 1 of 4 checkpoints</small></td>" in page


def test_how_many_are_planned_while_training_runs(fabricate: Any, make_report: Any, unseal: Any) -> None:
    task = fabricate(overrides=(STUDY, "trainee.training.checkpoints=7"))
    unseal(task, "evaluate/raw/seed2", 2)
    manifest: Path = task.input("pretrain/raw/seed2") / "artifact.json"
    manifest.unlink()
    _, report = make_report(task)
    assert report["partial"] == [{"arm": "raw", "seed": 2, "scored": 2, "of": 7}]
