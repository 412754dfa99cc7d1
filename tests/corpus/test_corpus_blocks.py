"""Unreadable files: their blocks fail with the reason, the others are done, and the seal decides."""

import json
from pathlib import Path
from typing import Any

import pytest

from prox_hpc.config import Corpus
from prox_hpc.corpus import blocks, filters, heldout
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import Block, Source, UnreadableBlock, open_source
from prox_hpc.corpus.write import block_path
from prox_hpc.publish import publish_json
from prox_hpc.task import Step, Task

BROKEN = "b.jsonl"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files of documents that pass the C4 rule."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a.jsonl", BROKEN, "c.jsonl"):
        text = "\n".join(f"This is sentence number {i} of the page in {name}, and it ends here." for i in range(9))
        (folder / name).write_text("".join(json.dumps({"id": f"{name}{i}", "text": text}) + "\n" for i in range(4)))
    return folder


def spoil(folder: Path) -> bytes:
    """Make a file unreadable without changing its size, as a bad disk does; returns what it held."""
    whole = (folder / BROKEN).read_bytes()
    (folder / BROKEN).write_bytes(b"\x00" * len(whole))
    return whole


def filter_step(folder: Path, allowed: int) -> Step:
    source = plan_files(Corpus("mine", "files", path=str(folder), allow_failed_blocks=allowed))
    return Step("filter", "c4", {"rules": ["c4"], "source": source}, tasks=2)


def run(step: Step, store: Path) -> Task:
    for index in range(step.tasks):
        filters.run(Task(step, index, store))
    return Task(step, 0, store)


def texts(artifact: Path) -> list[str]:
    source = Source.of_artifact(artifact)
    return [document.text for block in source.blocks for document in source.read(block)]


def test_the_rest_goes_on_and_the_seal_names_file_reason_and_remedy(folder: Path, tmp_path: Path) -> None:
    step = filter_step(folder, allowed=0)
    spoil(folder)
    task = run(step, tmp_path / "store")
    assert len(texts(task.out)) == 8
    assert not block_path(task.out, 1).exists()
    with pytest.raises(RuntimeError) as caught:
        filters.seal(task)
    told = str(caught.value)
    assert f"{folder / BROKEN}: none of its 1 lines is a JSON object" in told
    assert "corpus.allow_failed_blocks=1" in told


def test_a_block_that_can_be_read_again_is_as_if_nothing_had_been(folder: Path, tmp_path: Path) -> None:
    step = filter_step(folder, allowed=0)
    undisturbed = run(step, tmp_path / "undisturbed")
    whole = spoil(folder)
    task = run(step, tmp_path / "store")
    note = json.loads(blocks.failure_path(task.out, 1).read_text())
    assert (note["block"], note["path"]) == (1, str(folder / BROKEN))
    (folder / BROKEN).write_bytes(whole)
    run(step, tmp_path / "store")
    for path in sorted((undisturbed.out / "blocks").iterdir()):
        assert (task.out / "blocks" / path.name).read_bytes() == path.read_bytes()
    assert len(list((task.out / "blocks").iterdir())) == 6
    assert filters.seal(task) == filters.seal(undisturbed)


def test_allowed_failures_are_counted_and_later_steps_do_without_them(folder: Path, tmp_path: Path) -> None:
    step = filter_step(folder, allowed=1)
    spoil(folder)
    task = run(step, tmp_path)
    summary = filters.seal(task)
    assert (summary["blocks"], summary["failed_blocks"], summary["documents_in"]) == (2, 1, 8)
    publish_json(task.out / "artifact.json", {"summary": summary})
    after = run(Step("filter", "again", {"rules": ["fineweb"]}, {"corpus": step.address}), tmp_path)
    summary = filters.seal(after)
    assert (summary["blocks"], summary["failed_blocks"], summary["documents_in"]) == (2, 0, 8)


def test_all_blocks_failed_is_never_allowed(folder: Path, tmp_path: Path) -> None:
    step = filter_step(folder, allowed=5)
    for path in folder.iterdir():
        path.write_bytes(b"\x00" * path.stat().st_size)
    task = run(step, tmp_path)
    with pytest.raises(RuntimeError, match=r"3 block\(s\) could not be read, 2 may"):
        filters.seal(task)
    with pytest.raises(UnreadableBlock):
        list(blocks.documents(open_source(task)))


def test_a_late_note_does_not_undo_a_published_block_and_leftovers_go(folder: Path, tmp_path: Path) -> None:
    step = filter_step(folder, allowed=1)
    task = run(step, tmp_path)
    late = UnreadableBlock(str(folder / "a.jsonl"), "the disk was away")
    blocks.publish_failure(task, Block(0, late.path), late)
    assert blocks.failed_blocks(task.out, range(3)) == {}
    # a task died between the documents of block 1 and their counts; the next one could not read the file any more
    block_path(task.out, 1).with_suffix(".json").unlink()
    spoil(folder)
    run(step, tmp_path)
    assert filters.seal(task)["failed_blocks"] == 1
    assert len(texts(task.out)) == 8


def test_a_block_that_failed_before_fails_again_though_it_could_be_read(folder: Path, tmp_path: Path) -> None:
    step = filter_step(folder, allowed=1)
    whole = spoil(folder)
    task = run(step, tmp_path)
    (folder / BROKEN).write_bytes(whole)
    source = open_source(task)
    blocks.check_read_before(task.out, source.blocks[0])
    with pytest.raises(UnreadableBlock, match="none of its 1 lines"):
        blocks.check_read_before(task.out, source.blocks[1])


def test_steps_of_one_product_pass_over_as_much_as_is_allowed(folder: Path, tmp_path: Path) -> None:
    sources: list[dict[str, Any]] = [
        plan_files(Corpus("dev", "files", path=str(folder), allow_failed_blocks=allowed)) for allowed in (0, 1)
    ]
    spoil(folder)
    strict, lenient = (
        Task(
            Step("heldout", "dev", {"kind": "files", "source": source}),
            0,
            tmp_path / str(source["allow_failed_blocks"]),
        )
        for source in sources
    )
    heldout.run(lenient)
    assert heldout.seal(lenient)["documents"] == 8
    with pytest.raises(UnreadableBlock, match=r"b\.jsonl"):
        heldout.run(strict)
    assert not (strict.out / "text.jsonl").exists()
