"""An arm that cannot fill one batch is refused where that is known before anything is queued."""

import json
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.errors import UserError
from prox_hpc.launch import plan
from prox_hpc.publish import publish_json
from prox_hpc.study.amount import check_amounts
from prox_hpc.study.plan import Plan
from prox_hpc.study.store import artifact_dir
from tests.test_conf import composed

BATCH = 2048


def planned(corpus: Path, *overrides: str) -> Plan:
    given = ("corpus=files", f"corpus.path={corpus}", "arm=[raw,gopher,prox_dc]", *overrides)
    return plan(composed(*given, "dry_run=true"))


def pages(path: Path, size: int) -> Path:
    """A file of `size` bytes: one page of them, and the marks around it."""
    line = json.dumps({"text": "a" * (size - 13)}) + "\n"
    path.write_text(line)
    assert path.stat().st_size == size
    return path


def test_an_arm_whose_tokens_are_published(tmp_path: Path) -> None:
    study, store = planned(pages(tmp_path / "p.jsonl", 10 * BATCH)), tmp_path / "store"
    check_amounts(store, study)
    tokens = {step.name: step for step in study if step.kind == "tokenize"}
    for name, held in (("raw", BATCH), ("prox_dc", BATCH - 1)):
        publish_json(artifact_dir(store, tokens[name]) / "artifact.json", {"summary": {"tokens": held}})
    with pytest.raises(UserError, match=r"training\.batch_tokens=2048: .* holds only 2047 tokens, so arm prox_dc is"):
        check_amounts(store, study)


@pytest.mark.parametrize(
    ("name", "size", "arms", "refused"),
    [
        ("p.jsonl", BATCH - 1, "[raw]", "raw"),
        ("p.jsonl", BATCH - 1, "[gopher,prox_dc]", "gopher"),
        ("p.jsonl", BATCH - 1, "[prox_dc]", None),  # a program may make text longer
        ("p.jsonl", BATCH, "[raw]", None),
    ],
)
def test_files_smaller_than_a_batch(tmp_path: Path, name: str, size: int, arms: str, refused: Any) -> None:
    study = planned(pages(tmp_path / name, size), f"arm={arms}")
    if refused is None:
        check_amounts(tmp_path / "store", study)
        return
    with pytest.raises(UserError, match=rf"have only {size} bytes, so arm {refused} is less than one batch"):
        check_amounts(tmp_path / "store", study)
