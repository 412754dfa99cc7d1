"""`python -m prox_hpc.replay`: recorded programs executed again, by the command a user types."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prox_hpc import replay
from prox_hpc.corpus.read import Document
from prox_hpc.programs import ChunkProgram
from prox_hpc.refine.records import Written

MakeRun = Callable[..., Path]
BODY = "The museum opened its doors in the old town and has been visited by many people since."


def page(number: int) -> tuple[Document, Written]:
    """Scores fall with the number; every third page is untouched, every fifth loses all but ten words."""
    text = f"Home | About {number}\n{BODY} {number}\nShare this page with ten of your friends today"
    program = "keep_chunk()" if number % 3 == 0 else 'remove_lines(0, 0)\nnormalize("Share", "Tell")'
    if number % 5 == 1:
        program = "remove_lines(0, 1)"
    written = Written(1.0 - number / 10, chunks=[ChunkProgram(0, 3, program)])
    return Document(f"d{number}", text, {"url": f"https://a.test/{number}"}), written


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    """Three blocks of ten pages; pages 10 and up score below the threshold, and only those to 19 are programmed."""
    pages = [page(number) for number in range(30)]
    for _, written in pages[20:]:
        written.chunks = []
    return make_run(pages[:10], pages[10:20], pages[20:], refiner={"chunk_margin": 1.0})


def replayed(run: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `--json` prints."""
    assert replay.main([str(run), "--json", "--workers", "2", *arguments]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def texts(result: dict[str, Any]) -> dict[str, str]:
    """Text by id of the new corpus."""
    found = sorted((Path(result["folder"]) / "blocks").glob("*.parquet"))
    return {row["id"]: row["text"] for path in found for row in pq.read_table(path).to_pylist()}


def test_its_own_settings_give_the_run_s_own_corpus(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = replayed(run, capsys=capsys)
    assert result["settings"] == result["run_settings"]
    assert result["replay"]["changes"] == {}
    assert result["replay"]["digest_out"] == result["run"]["digest_out"]
    (programs,) = (run.parents[1] / "store" / "artifacts" / "refine").iterdir()
    for index in range(3):
        own = programs / "blocks" / f"{index:05d}.refined.parquet"
        assert (Path(result["folder"]) / "blocks" / f"{index:05d}.parquet").read_bytes() == own.read_bytes()
    manifest = json.loads((Path(result["folder"]) / "artifact.json").read_text())
    assert manifest["summary"]["documents_in"] == 30
    assert manifest["inputs"]["programs"] == f"refine/{programs.name}"


def test_other_settings(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = texts(replayed(run, capsys=capsys))
    assert set(own) == {f"d{number}" for number in range(11)} - {"d1", "d6"}  # 10 words left are too few
    lower = replayed(run, "--doc-threshold", "-0.95", capsys=capsys)
    assert set(texts(lower)) == {f"d{number}" for number in range(20)} - {"d1", "d6", "d11", "d16"}
    assert lower["replay"]["changes"] == {"dropped -> edited": 4, "dropped -> untouched": 3}
    more = replayed(run, "--min-words", "5", capsys=capsys)
    assert set(texts(more)) == {f"d{number}" for number in range(11)}
    assert more["replay"]["changes"] == {"dropped -> edited": 2}
    deletions = replayed(run, "--profile", "deletion_only", capsys=capsys)
    assert "Share this" in texts(deletions)["d2"]
    assert "Tell this" in own["d2"]
    assert deletions["replay"]["changes"] == {"edited otherwise": 6}
    assert deletions["replay"]["refused"] == {"not in this profile": 6}
    one_call = replayed(run, "--cap", "operations=1", capsys=capsys)
    assert one_call["replay"]["malformed"] == {"too many operations": 6}
    strict = replayed(run, "--max-removed", "0.1", capsys=capsys)
    assert set(texts(strict)) == {"d0", "d3", "d9"}
    assert replayed(run, "--no-chunk", capsys=capsys)["replay"]["outcomes"]["edited"] == 0


def test_a_share_to_keep(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = replayed(run, "--keep-share", "0.2", "--min-words", "0", capsys=capsys)
    assert result["settings"]["threshold"] == pytest.approx(0.5)
    assert set(texts(result)) == {f"d{number}" for number in range(6)}


def test_what_changed_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for expected in ("", "this replay was made before:\n"):
        assert replay.main([str(run), "--min-words", "5", "--name", "longer"]) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"{expected}settings: checks.min_words 11 -> 5\n")
        assert "dropped -> edited 2" in told
        assert [line.split() for line in told.splitlines() if line.startswith("edited")] == [["edited", "6", "8", "+2"]]
        assert "/execute/longer-" in told.splitlines()[-1]


def test_a_replay_goes_on_where_it_was_stopped(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = replayed(run, capsys=capsys)
    folder = Path(result["folder"])
    (folder / "artifact.json").unlink()
    (folder / "blocks" / "00001.json").unlink()
    (folder / "blocks" / "00001.parquet").unlink()
    kept = (folder / "blocks" / "00002.parquet").stat().st_mtime_ns
    assert replayed(run, capsys=capsys) == result
    assert (folder / "blocks" / "00002.parquet").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--doc-threshold", "-1.5"], "--doc-threshold -1.5: documents that score below -1 have no chunk programs"),
        (["--no-doc"], "--no-doc: the refine step wrote chunk programs only for documents that its doc stage let"),
        (["--no-doc", "--no-chunk"], "neither the doc stage nor the chunk stage is left"),
        (["--keep-share", "0.9"], "have no chunk programs"),
        (["--keep-share", "30"], "--keep-share 30: give a share between 0 and 1"),
        (["--cap", "bytes=3"], "--cap bytes=3: unknown cap 'bytes'; one of program_bytes, operations"),
        (["--cap", "operations=many"], "--cap operations=many: give a positive number"),
        (["--max-removed", "0"], "--max-removed must be above 0"),
        (["--name", "a/b"], "--name a/b: give letters"),
        (["--refiner", "xl"], "--refiner xl: choose one of web-tiny"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    run: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay.main([str(run), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert not (run.parents[1] / "store" / "artifacts" / "execute").exists()


def test_what_is_no_run(tmp_path: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    run = make_run([page(0)], published=False)
    assert replay.main([str(run)]) == 2
    assert "is not finished" in capsys.readouterr().err
    study = (run / "study.json").read_text()
    (run / "study.json").write_text(study.replace('"refine/web-tiny-', '"refine/web-tiny-f00'))
    assert replay.main([str(run)]) == 2
    assert "was refined by an older version of prox_hpc" in capsys.readouterr().err


def test_without_a_doc_stage_there_are_no_scores(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    document, written = page(2)
    written.doc_score = None
    run = make_run([(document, written)], doc_stage=False, program_all=True)
    for option in (["--doc-threshold", "0.5"], ["--keep-share", "0.5"]):
        assert replay.main([str(run), *option]) == 2
        assert f"{option[0]}: the refine step ran without its doc stage" in capsys.readouterr().err
    assert set(texts(replayed(run, capsys=capsys))) == {"d2"}


def test_a_dry_run_writes_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(run), "--dry-run", "--doc-threshold", "0.3"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["threshold"] == 0.3
    assert not Path(told["folder"]).exists()


def test_a_damaged_corpus_fails_with_the_reason(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus,) = (run.parents[1] / "store" / "artifacts" / "generate").iterdir()
    blocks = corpus / "blocks"
    (blocks / "00000.parquet").write_bytes((blocks / "00001.parquet").read_bytes())
    assert replay.main([str(run)]) == 1
    assert "document 'd10': the programs file holds 'd0' or another text there" in capsys.readouterr().err


def test_from_a_shell(run: Path, command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = command("prox_hpc.replay", run, "--keep-share", "0.1")
    assert done.returncode == 0, done.stderr
    assert "threshold 0.0 -> 0.8" in done.stdout
    done = command("prox_hpc.replay", "--help")
    assert "--keep-share" in done.stdout
    assert "examples:" in done.stdout
