"""Which documents are drawn: all that match have the same chance, and who finds nothing is told what there is."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.corpus.read import Document
from prox_hpc.errors import UserError
from prox_hpc.inspection.select import Selection, Wanted, select
from prox_hpc.programs import ChunkProgram
from prox_hpc.recorded import open_recorded
from prox_hpc.refine.records import Written


def drawn(run: Path, size: int = 100, seed: int = 0, **wanted: Any) -> Selection:
    recorded = open_recorded(run)
    return select(recorded, recorded.execution, Wanted(**wanted), size, seed)


def ids(run: Path, **wanted: Any) -> list[str]:
    return [view.id for view in drawn(run, **wanted).views]


def test_each_choice_and_all_together(run: Path) -> None:
    assert ids(run) == ["menu", "spaces", "junk", "short", "blank", "<b>hostile</b>\u202e", "cut"]
    assert ids(run, statuses=("truncated",)) == ["cut"]
    assert ids(run, statuses=("truncated", "partial")) == ["menu", "spaces", "cut"]
    assert ids(run, ops=("normalize",)) == ["spaces", "<b>hostile</b>\u202e"]
    assert ids(run, refused=True) == ["menu", "spaces"]
    assert ids(run, refused=True, ops=("normalize",)) == ["spaces"]
    assert ids(run, outcome="dropped") == ["junk", "short"]
    assert ids(run, reason="OUTSIDE the") == ["menu"]
    assert ids(run, reason="too few") == ["short"]
    assert ids(run, reason="cut off") == ["cut"]
    assert ids(run, domain="b.test") == ["spaces", "cut"]
    assert ids(run, domain="example.org") == ids(run, domain="www.Example.org") == ["menu"]
    assert ids(run, id="short") == ["short"]
    assert ids(run, domain="b.test", ops=("keep_chunk",)) == ["cut"]


def test_part_of_a_host_is_no_domain(run: Path) -> None:
    with pytest.raises(UserError, match=r"2 b\.test.*1 www\.example\.org"):
        drawn(run, domain="ample.org")


def test_who_finds_nothing_is_told_what_there_is(run: Path) -> None:
    for wanted, there in (
        ({"statuses": ("oversized",)}, r"none of 7 .* --status oversized; programs: 3 ok, 2 partial, 1 malformed"),
        (
            {"ops": ("keep_chunk",), "refused": True},
            r"--op keep_chunk --refused; operations: 6 remove_lines.*reasons: 1",
        ),
        ({"outcome": "untouched", "domain": "b.test"}, r"documents: 2 edited$"),
        ({"reason": "nonsense"}, r"reasons: .*1 too few words"),
        ({"id": "shor"}, r"give the whole id"),
    ):
        with pytest.raises(UserError, match=there) as error:
            drawn(run, **wanted)
        assert "\n" not in str(error.value)


def many(make_run: Any, count: int) -> Path:
    block = [
        (Document(f"d{n}", f"text {n}", {}), Written(1.0, chunks=[ChunkProgram(0, 1, "keep_chunk()")]))
        for n in range(count)
    ]
    run: Path = make_run(block[: count // 3], block[count // 3 :])
    return run


def test_the_draw_is_uniform_seeded_and_in_order(make_run: Any) -> None:
    run = many(make_run, 12)
    counts: Counter[str] = Counter()
    for seed in range(300):
        selection = drawn(run, size=3, seed=seed)
        found = [int(view.id[1:]) for view in selection.views]
        assert found == sorted(set(found))
        assert (selection.documents, selection.matched, len(found)) == (12, 12, 3)
        counts.update(view.id for view in selection.views)
    # 300 draws of 3 out of 12 documents: 75 each, standard deviation 7.5
    assert min(counts.values()) > 45
    assert max(counts.values()) < 105
    assert len(counts) == 12
    assert [v.id for v in drawn(run, size=3, seed=5).views] == [v.id for v in drawn(run, size=3, seed=5).views]


def test_a_run_without_documents(make_run: Any) -> None:
    with pytest.raises(UserError, match="holds no documents"):
        drawn(make_run([]))
