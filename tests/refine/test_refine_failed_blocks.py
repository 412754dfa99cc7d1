"""A block that the refine step could not read and was allowed to leave out is left out of every arm."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prox_hpc.config import Corpus
from prox_hpc.corpus.blocks import publish_failure
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import UnreadableBlock, open_source
from prox_hpc.programs import ChunkProgram
from prox_hpc.publish import publish_file, publish_json
from prox_hpc.refine import execute
from prox_hpc.refine.records import Execution, Written, programs_path, row, schema
from prox_hpc.task import Step, Task

BODY = "The museum opened its doors in the old town and has been visited by many people since."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in "abc":
        lines = [json.dumps({"lines": ["Home", f"{BODY} {name}{i}"], "keep": [0, 1]}) + "\n" for i in range(3)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


def spoil(path: Path) -> None:
    path.write_bytes(b"\x00" * path.stat().st_size)


def programs(store: Path, source: dict[str, object], failed: int) -> str:
    """A refine artifact in which that block failed."""
    task = Task(Step("refine", "mine-tiny", {"source": source}), 0, store)
    documents = open_source(task)
    for block in documents.blocks:
        if block.index == failed:
            publish_failure(task, block, UnreadableBlock(block.path, "the disk was away"))
            continue
        written = Written(chunks=[ChunkProgram(0, 2, "remove_lines(0, 0)")])
        rows = [row(document, written, Execution(doc=False)) for document in documents.read(block)]
        table = pa.Table.from_pylist(rows, schema())
        publish_file(programs_path(task.out, block.index), lambda draft, table=table: pq.write_table(table, draft))
    publish_json(task.out / "artifact.json", {"summary": {}})
    return task.step.address


def described(folder: Path, allowed: int) -> dict[str, object]:
    settings = {"text_column": "lines", "keep_column": "keep", "allow_failed_blocks": allowed}
    return plan_files(Corpus("mine", "files", path=str(folder), **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("readable", [True, False])
def test_without_programs_a_block_fails_whether_or_not_it_can_be_read_now(
    folder: Path, tmp_path: Path, readable: bool
) -> None:
    source = described(folder, allowed=1)
    inputs = {"programs": programs(tmp_path, source, failed=1)}
    if not readable:
        spoil(folder / "b.jsonl")
    arm = {"kind": "refined", "doc": False}
    task = Task(Step("execute", "prox_c", {"source": source, "arm": arm}, inputs), 0, tmp_path)
    execute.run(task)
    summary = execute.seal(task)
    assert (summary["failed_blocks"], summary["documents_in"], summary["documents_out"]) == (1, 6, 6)
    assert [path.name for path in sorted((task.out / "blocks").glob("*.parquet"))] == ["00000.parquet", "00002.parquet"]


def test_one_more_than_allowed_fails_the_arm_and_the_others_are_made(folder: Path, tmp_path: Path) -> None:
    source = described(folder, allowed=1)
    inputs = {"programs": programs(tmp_path, source, failed=1)}
    spoil(folder / "c.jsonl")
    arm = {"kind": "refined", "doc": False}
    task = Task(Step("execute", "prox_c", {"source": source, "arm": arm}, inputs), 0, tmp_path)
    execute.run(task)
    assert [path.name for path in sorted((task.out / "blocks").glob("*.parquet"))] == ["00000.parquet"]
    with pytest.raises(RuntimeError, match=r"2 block\(s\) could not be read, 1 may.*the disk was away.*c\.jsonl"):
        execute.seal(task)


@pytest.mark.parametrize("kind", ["gold", "random"])
def test_other_arms_count_their_unreadable_blocks(folder: Path, tmp_path: Path, kind: str) -> None:
    source = described(folder, allowed=1)
    like = Task(Step("filter", "like", {}), 0, tmp_path)
    publish_json(like.out / "artifact.json", {"summary": {"documents_in": 2, "documents_out": 1}})
    spoil(folder / "a.jsonl")
    step = Step("execute", kind, {"source": source, "arm": {"kind": kind}}, {"like": like.step.address})
    task = Task(step, 0, tmp_path)
    execute.run(task)
    summary = execute.seal(task)
    assert (summary["failed_blocks"], summary["documents_in"]) == (1, 6)
    assert summary["documents_in"] == summary["documents_out"] + summary["outcomes"]["dropped"]
