"""What launch checks of a store before it queues anything."""

from pathlib import Path

import pytest

from prox_hpc.errors import UserError
from prox_hpc.publish import publish_json
from prox_hpc.study.plan import Plan
from prox_hpc.study.store import artifact_dir, check_allowed, forget_failures
from prox_hpc.task import Step


def step(allowed: int) -> Step:
    return Step("filter", "gopher", {"source": {"files": [], "allow_failed_blocks": allowed}, "rules": ["c4"]})


def test_what_was_published_under_a_laxer_allowance_is_not_taken(tmp_path: Path) -> None:
    lax, strict = step(2), step(1)
    assert lax.address == strict.address
    check_allowed(tmp_path, Plan((strict,)))  # nothing there yet
    publish_json(artifact_dir(tmp_path, lax) / "artifact.json", {"summary": {"failed_blocks": 2}})
    check_allowed(tmp_path, Plan((lax,)))
    with pytest.raises(UserError, match=r"allow_failed_blocks=1: .*gopher-.* without 2 unreadable block.*allow 2, or"):
        check_allowed(tmp_path, Plan((strict,)))


def test_notes_of_failures_are_gone_before_a_new_attempt(tmp_path: Path) -> None:
    note = artifact_dir(tmp_path, step(0)) / "blocks" / "00003.failed.json"
    publish_json(note, {})
    assert forget_failures(tmp_path, step(0))
    assert not note.exists()
    assert not forget_failures(tmp_path, step(0))
