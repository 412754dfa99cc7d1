"""`python -m prox_hpc.inspect`: what a user types, and what is said to one who types it wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prox_hpc import inspect
from prox_hpc.inspection.select import OPERATIONS, STATUSES
from prox_hpc.study.store import load_run

MakeRun = Callable[..., Path]
Documents = list[Any]
Capture = pytest.CaptureFixture[str]


def titles(text: str) -> list[str]:
    """outcome and id of the documents shown."""
    return [line.split(" ─")[0] for line in text.splitlines() if "──" in line]


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "prox_hpc.inspect", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd="/", env={**os.environ, **environment})


def test_the_documents_asked_for(run: Path, capsys: Capture) -> None:
    assert inspect.main([str(run), "--op", "normalize", "--status", "truncated,partial", "--refused"]) == 0
    text = capsys.readouterr().out
    assert titles(text) == ["edited spaces"]
    assert text.endswith("1 of 7 documents match, all shown\n")
    assert inspect.main([str(run), "--outcome", "dropped", "--sample", "1", "--seed", "3"]) == 0
    first = capsys.readouterr().out
    assert first.endswith("2 of 7 documents match, 1 drawn (seed 3)\n")
    inspect.main([str(run), "--outcome", "dropped", "--sample", "1", "--seed", "3"])
    assert capsys.readouterr().out == first


def test_twenty_are_drawn_for_a_terminal(documents: Documents, make_run: MakeRun, capsys: Capture) -> None:
    assert inspect.main([str(make_run(documents * 6))]) == 0
    text = capsys.readouterr().out
    assert len(titles(text)) == 20
    assert text.endswith("42 of 42 documents match, 20 drawn (seed 0)\n")


def test_in_a_pipe_whatever_the_encoding(run: Path) -> None:
    done = command(run, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  000 - Home | About\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_pipe_may_close(run: Path) -> None:
    line = f"{sys.executable} -m prox_hpc.inspect {run} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, cwd="/")
    assert done.stdout.startswith("edited menu")
    assert done.stderr == ""


def test_a_page_is_written_and_told_of(run: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "page.html"
    assert inspect.main([str(run), "--html", str(file), "--status", "ok"]) == 0
    assert capsys.readouterr().out == f"{file}: 3 of 7 documents match, all shown\n"
    data = file.read_text().split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert [one["id"] for one in json.loads(data)["documents"]] == ["short", "<b>hostile</b>\u202e", "cut"]


def test_an_artifact_will_do(run: Path, capsys: Capture) -> None:
    config, steps = load_run(run)
    (step,) = [step for step in steps if step.kind == "refine"]
    assert inspect.main([f"{config['store']}/artifacts/{step.address}", "--id", "cut"]) == 0
    assert titles(capsys.readouterr().out) == ["edited cut"]


def test_the_run_s_own_settings_are_used(documents: Documents, make_run: MakeRun, capsys: Capture) -> None:
    refiner = {"profile": "deletion_only", "doc_threshold": -5.0, "checks": {"min_words": 1}}
    kept = [one for one in documents if one[0].id != "junk"]
    assert inspect.main([str(make_run(kept, refiner=refiner)), "--op", "normalize", "--refused", "--id", "spaces"]) == 0
    text = capsys.readouterr().out
    assert titles(text) == ["untouched spaces"]
    assert text.count("refused: not in this profile") == 3
    assert inspect.main([str(make_run(kept, refiner=refiner)), "--id", "short"]) == 0
    assert titles(capsys.readouterr().out) == ["edited short"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--status", "cut"],
            "--status cut: is not known; one of ok, partial, truncated, malformed, oversized, no_program",
        ),
        (["--op", "drop"], "--op drop: is not known; one of remove_lines, normalize, keep_chunk"),
        (["--outcome", "kept"], "--outcome kept: is not known; one of untouched, edited, dropped"),
        (["--sample", "0"], "--sample 0: give a number of documents, at least 1"),
        (["--html", "/no/such/folder/page.html"], "/no/such/folder/page.html: there is no folder /no/such/folder"),
        (["--html", "/"], "--html /: cannot be written"),
        (["--refiner", "xl"], "--refiner xl"),
        (["--status", "oversized"], "none of 7 documents matches --status oversized; programs: 3 ok"),
    ],
)
def test_wrong_values_are_told_in_a_line(
    run: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main([str(run), *arguments]) == 2
    text = capsys.readouterr().err
    assert told in text
    assert text.startswith("error: ")
    assert text.count("\n") == 1


def test_what_is_no_run_or_not_finished(
    documents: Documents, make_run: MakeRun, tmp_path: Path, capsys: Capture
) -> None:
    assert inspect.main([str(tmp_path / "nowhere")]) == 2
    assert "no study.json" in capsys.readouterr().err
    assert inspect.main([str(make_run(documents, published=False))]) == 2
    assert "is not finished" in capsys.readouterr().err


def test_help_is_light() -> None:
    code = "import sys, prox_hpc.inspect as i; i.parser()\nprint({'pyarrow', 'rich', 'jinja2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    done = command("--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert "default 20, on a page 1,000" in text
    assert " ".join(STATUSES) in text
    assert " ".join(OPERATIONS) in text
