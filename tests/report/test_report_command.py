"""`python -m prox_hpc.report`: the report again with other switches, and several studies side by side."""

import csv
import errno
import json
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.report.__main__ import main
from prox_hpc.report.compare import common_folder
from tests.report.conftest import fabricator, made


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(run folder, what the report step wrote)."""
    folder, report = made(fabricator(tmp_path_factory.mktemp("study"))(overrides=("arm=[raw,prox_dc]",)))
    return folder.parent, report


@pytest.fixture(scope="module")
def run(study: tuple[Path, dict[str, Any]]) -> Path:
    return study[0]


def test_it_is_built_again_with_other_switches_and_without(study: tuple[Path, dict[str, Any]], command: Any) -> None:
    run, first = study
    done = command(
        "prox_hpc.report", run, "--charge", "sft=off", "--charge", "chunk_decode=off", "--prorate", "run", "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    size = 1_060_000
    assert report["refining_flops"] == pytest.approx(2 * size * (650_000 + 420_000))
    assert report["charge"]["prorate"] == "run"
    assert json.loads((run / "report" / "report.json").read_text()) == report
    assert "report.prorate=run" in (run / "report" / "report.html").read_text()
    done = command("prox_hpc.report", run)
    assert done.returncode == 0, done.stderr
    assert "charged: sft, doc_pass" in done.stdout
    assert str(run / "report" / "report.html") in done.stdout
    again = json.loads((run / "report" / "report.json").read_text())
    assert again | {"created": ""} == first | {"created": ""}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--charge", "decode=off"], "--charge decode=off: no such row; one of annotation, base_training"),
        (["--charge", "sft=no"], "--charge sft=no: write sft=on or sft=off"),
    ],
)
def test_a_wrong_switch_is_told_in_a_line(run: Path, command: Any, arguments: list[str], told: str) -> None:
    done = command("prox_hpc.report", run, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_run_is_told_in_a_line(tmp_path: Path, command: Any) -> None:
    gone, bare, damaged, old = (tmp_path / name for name in ("gone", "bare", "damaged", "old"))
    for folder in (gone, bare, damaged / "report", old / "report"):
        folder.mkdir(parents=True)
    (gone / "study.json").write_text(json.dumps({"config": {"store": str(tmp_path / "nowhere")}, "steps": {}}))
    (bare / "study.json").write_text("{}")
    (damaged / "report" / "report.json").write_text("{")
    (old / "report" / "report.json").write_text('{"break_even": []}')
    for arguments, told in (
        ((tmp_path,), f"{tmp_path}: is not a run folder (no study.json); runs are in OUTPUT/runs/"),
        ((gone,), f"store={tmp_path / 'nowhere'}: is not there"),
        ((bare,), f"{bare / 'study.json'}: is damaged (KeyError"),
        (("compare", tmp_path), f"{tmp_path}: is not a run folder"),
        (("compare", bare), f"{bare}: has no report yet; build it with `python -m prox_hpc.report {bare}`"),
        (("compare", old), f"was made by an older prox_hpc; build it again with `python -m prox_hpc.report {old}`"),
        (("compare", damaged), f"build it again with `python -m prox_hpc.report {damaged}`"),
    ):
        done = command("prox_hpc.report", *arguments)
        assert done.returncode == 2
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_what_cannot_be_written_is_told_in_a_line(run: Path, monkeypatch: Any, capsys: Any) -> None:
    """As root no mode keeps anyone from writing, so the refusal is made up."""

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("prox_hpc.report.task.replace_text", refuse)
    monkeypatch.setattr("prox_hpc.report.compare.replace_text", refuse)
    for arguments, folder in (([str(run)], run / "report"), (["compare", str(run)], run.parent)):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert told == f"error: {folder}: cannot be written (Permission denied); ask who owns it\n"


def test_runs_of_several_folders_are_compared_in_the_current_one(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert common_folder([Path("/a/x"), Path("/b/y")]) == tmp_path
    assert common_folder([Path("/a/x"), Path("/a/y")]) == Path("/a")


def test_studies_side_by_side(fabricate: Any, make_report: Any, command: Any) -> None:
    folders = []
    for name, shift, parameters in (("large", 1.2, 3_000_000), ("small", 1.0, 1_000_000)):
        given = ("refiner.train=false", "refiner.doc_model=o/d", "refiner.chunk_model=o/c", "trainee.tokenizer=o/t")
        overrides = (
            *given,
            f"name={name}",
            "arm=[raw,prox_dc]",
            f"refiner.parameters={parameters}",
            f"refiner.name={name}",
        )
        task = fabricate(shift={"prox_dc": shift}, overrides=overrides)
        folders.append(make_report(task)[0].parent)
    done = command("prox_hpc.report", "compare", *folders)
    assert done.returncode == 0, done.stderr
    with (folders[0].parent / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["refiner"] for row in rows] == ["small", "large"], "the smallest refiner first"
    assert float(rows[1]["refining_flops"]) == pytest.approx(3 * float(rows[0]["refining_flops"]))
    assert all(float(row["break_even_tokens"]) > 0 and row["pays"] == "True" for row in rows)
    assert json.loads((folders[0].parent / "comparison.json").read_text())[0]["token_retention"] == pytest.approx(
        0.5525
    )
    assert done.stdout.index("small") < done.stdout.index("large")
    assert "comparison.csv" in done.stdout


def test_help_needs_no_heavy_library(command: Any) -> None:
    done = command("prox_hpc.report", "--help", PYTHONPROFILEIMPORTTIME="1")
    assert "--charge" in done.stdout
    assert not {"numpy", "pyarrow", "torch", "rich"} & {
        line.split("|")[-1].strip() for line in done.stderr.splitlines()
    }
