"""A study of the user's own files: lists of lines with flags, no verdicts per document, odd documents among them."""

import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from prox_hpc.corpus.web import make_page
from prox_hpc.programs import parse, removed_lines
from prox_hpc.study.store import artifact_dir, load_run
from tests.conftest import Command

PAGES = 60
ODD = {
    "empty": [],
    "blank": ["   ", "\t"],
    "control characters": ["\x00\x01 tick \x07", "\x1b[2J"],
    "surrogate": ["half a pair: \ud83d", "whole text after it"],
    "enormous": ["word " * 400_000],
}


def records(seed: str, count: int) -> list[dict[str, Any]]:
    """Generated pages as line lists with flags, as a web-page cleaning data set gives them."""
    found = []
    for row in range(count):
        page = make_page("test", seed, 0, row, junk=False)
        lines = page.text.split("\n")
        gone = removed_lines(parse(page.program, "chunk"), len(lines))
        found.append({"id": f"{seed}{row}", "lines": lines, "keep": [int(i not in gone) for i in range(len(lines))]})
    return found


def write(path: Path, rows: list[dict[str, Any]], more: bytes = b"") -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode() + more
    path.write_bytes(zstandard.compress(text))
    return path


@pytest.fixture(scope="module")
def run(tiny_study: Path, launch: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder; it shares the tiny study's store, so its refiner is reused."""
    folder = tmp_path_factory.mktemp("files")
    odd = [{"id": name, "lines": lines, "keep": [1] * len(lines)} for name, lines in ODD.items()]
    broken = b'{"id": "cut", "lines": ["never\n' + b'{"id": "utf8", "lines": ["caf\xe9"], "keep": [1]}\n'
    corpus = write(folder / "train.jsonl.zst", records("a", PAGES) + odd, broken)
    held_out = write(folder / "dev.jsonl.zst", records("b", 15))
    output = tiny_study.parents[1]
    done = launch(
        "scale=tiny", "experiment=real_pages", f"corpus.path={corpus}", f"evaluation.path={held_out}",
        "seeds=[1]", "name=files", f"output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "adapt/nano" in done.stdout
    return output / "runs" / "files"


def summary(run: Path, kind: str) -> dict[str, Any]:
    config, steps = load_run(run)
    step = next(step for step in steps if step.kind == kind)
    return json.loads((artifact_dir(Path(config["store"]), step) / "artifact.json").read_text())["summary"]  # type: ignore[no-any-return]


def test_odd_documents_are_counted_and_stop_nothing(run: Path) -> None:
    refine = summary(run, "refine")
    documents = refine["documents"]
    assert documents["in"] == PAGES + len(ODD) + 2
    assert documents["failed"] == 1, "the record that was cut off"
    assert documents["in"] == documents["kept"] + documents["dropped"] + documents["failed"]
    assert refine["programs"]["chunk"]["oversized"] >= 1


def test_the_report_compares_bits_per_byte_on_gold_text(run: Path) -> None:
    report = json.loads((run / "report" / "report.json").read_text())
    assert not report["missing"]
    assert summary(run, "score")["line"]["f1"] >= 0
    config, steps = load_run(run)
    evaluate = next(step for step in steps if step.kind == "evaluate")
    scores = json.loads((artifact_dir(Path(config["store"]), evaluate) / "scores.json").read_text())
    assert scores["checkpoints"][-1]["scores"]["world_bpb"]["bits_per_byte"] > 0


def test_the_refiner_was_not_made_again(run: Path, tiny_study: Path) -> None:
    adapt = [next(s.address for s in load_run(folder)[1] if s.kind == "adapt") for folder in (run, tiny_study)]
    assert adapt[0] == adapt[1]
