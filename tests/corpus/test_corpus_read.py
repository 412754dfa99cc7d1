"""Reading corpora: every format, every kind of bad record, every mistake that `plan_files` must tell."""

import gzip
import hashlib
import json
import pickle
import shutil
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from prox_hpc.config import Corpus
from prox_hpc.corpus import files
from prox_hpc.corpus.files import plan_files
from prox_hpc.corpus.read import Document, Source, UnreadableBlock, open_source, task_blocks
from prox_hpc.corpus.write import block_path, write_block
from prox_hpc.errors import UserError
from prox_hpc.programs import execute, parse
from prox_hpc.publish import publish_json
from prox_hpc.task import Step, Task

RECORDS = [{"id": f"d{i}", "text": f"text {i}\nsecond é", "url": f"https://e.example/{i}"} for i in range(7)]


def corpus(path: Path | str, **settings: object) -> Corpus:
    return Corpus(name="mine", kind="files", path=str(path), **settings)  # type: ignore[arg-type]


def jsonl(records: list[object]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def read_all(source: Source) -> list[Document]:
    return [document for block in source.blocks for document in source.read(block)]


def read_path(path: Path | str, **settings: object) -> tuple[list[Document], Source]:
    description = plan_files(corpus(path, **settings))
    assert json.loads(json.dumps(description)) == description
    source = Source.of_files(description)
    return read_all(source), source


def write(path: Path, records: list[dict[str, object]]) -> Path:
    data = jsonl(list(records))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=3)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(data[:50]) + gzip.compress(data[50:]))  # two members, as `cat` makes them
    elif path.suffix == ".zst":
        path.write_bytes(zstandard.compress(data[:50]) + zstandard.compress(data[50:]))
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".parquet"])
def test_every_format_gives_the_same_documents(tmp_path: Path, suffix: str) -> None:
    documents, source = read_path(write(tmp_path / f"part{suffix}", RECORDS))
    assert [d.text for d in documents] == [r["text"] for r in RECORDS]
    assert documents[3] == Document("d3", RECORDS[3]["text"], {"url": "https://e.example/3"})
    assert not source.failed
    assert not source.repaired


def test_folder_glob_and_url_find_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "b.jsonl", RECORDS[:2])
    write(tmp_path / "deep" / "a.parquet", RECORDS[2:])
    (tmp_path / "README.md").write_text("not data")
    by_folder, _ = read_path(tmp_path)
    by_url, _ = read_path(f"file://{tmp_path}")
    by_glob, _ = read_path(f"{tmp_path}/*.jsonl")
    assert {d.id for d in by_folder} == {d.id for d in by_url} == {r["id"] for r in RECORDS}
    assert [d.id for d in by_glob] == ["d0", "d1"]


def test_memory_url(tmp_path: Path) -> None:
    with fsspec.open("memory://corpus/x.jsonl.gz", "wb") as stream:
        stream.write(gzip.compress(jsonl(list(RECORDS))))
    for path in ("memory://corpus/x.jsonl.gz", "memory://corpus", "memory://corpus/*.gz"):
        assert [d.id for d in read_path(path)[0]] == [r["id"] for r in RECORDS]


def test_relative_path_is_read_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl", RECORDS)
    monkeypatch.chdir(tmp_path)
    description = plan_files(corpus("a.jsonl"))
    monkeypatch.chdir("/")
    assert len(read_all(Source.of_files(description))) == len(RECORDS)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_parquet_blocks_are_row_ranges_that_lose_and_double_nothing(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.parquet", RECORDS)  # row groups of 3, 3 and 1
    source = Source.of_files(plan_files(corpus(path, block_documents=size)))
    assert [block.index for block in source.blocks] == list(range(len(source.blocks)))
    stops = {1: [1, 2, 3, 4, 5, 6, 7], 2: [1, 3, 4, 6, 7], 3: [3, 6, 7], 5: [3, 7], 7: [7], 100: [7]}
    assert [block.stop for block in source.blocks] == stops[size]
    assert [d.id for d in read_all(source)] == [r["id"] for r in RECORDS]
    last = source.blocks[-1]
    assert [d.id for d in source.read(last)] == [r["id"] for r in RECORDS[last.start :]]


def damage(path: Path, at: float, size: int = 40) -> None:
    """Overwrite some bytes of a file at that share of it; its size stays."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + size] = b"\x00\xff" * (size // 2)
    path.write_bytes(data)


def test_of_a_parquet_file_only_the_row_groups_of_the_block_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{i} " + hashlib.sha512(str(i).encode()).hexdigest() for i in range(3000)]
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", row_group_size=1000)
    source = Source.of_files(plan_files(corpus(path, block_documents=400)))
    damage(path, 0.5)  # a page of the second row group
    assert [block.stop for block in source.blocks] == [333, 666, 1000, 1333, 1666, 2000, 2333, 2666, 3000]
    for block in (source.blocks[0], source.blocks[2], source.blocks[6], source.blocks[8]):
        assert [d.text for d in source.read(block)] == texts[block.start : block.stop]
    with pytest.raises(UnreadableBlock) as caught:
        list(source.read(source.blocks[5]))
    assert caught.value.path == str(path)
    assert 1000 <= caught.value.row < 2000


def test_memory_is_bounded_in_a_row_group_far_larger_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    random = np.random.default_rng(1)
    texts = [random.bytes(24_000).hex() for _ in range(2000)]  # 96 MB, and no compression to speak of
    pq.write_table(pa.table({"text": texts}), path, compression="none", use_dictionary=False)
    assert pq.read_metadata(path).num_row_groups == 1
    source = Source.of_files(plan_files(corpus(path, block_documents=500)))
    assert len(source.blocks) == 4
    before, most = pa.total_allocated_bytes(), 0
    for document, text in zip(source.read(source.blocks[-1]), texts[1500:], strict=True):
        assert document.text == text
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 80e6  # Arrow takes 60 MB, however large the row group is


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_limit_counts_per_file(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a{suffix}", RECORDS[:5])
    write(tmp_path / f"b{suffix}", RECORDS[5:])
    documents, _ = read_path(tmp_path, limit=3, block_documents=2)
    assert [d.id for d in documents] == ["d0", "d1", "d2", "d5", "d6"]


def test_the_share_of_main_text_gives_verdicts(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"lines": ["one two", "three", "", "four"], "keep": [0, 1, 1, 0]},  # 1 word of 4
        {"lines": ["one", "two three", "", "four"], "keep": [1, 0, 1, 0]},
        {"lines": ["one two", "three four"], "keep": [0, 1]},
        {"lines": ["one"], "keep": [0]},
        {"lines": [" "], "keep": [1]},  # no words at all
        {"lines": ["one"], "keep": [1, 1]},
    ]
    path = write(tmp_path / "p.jsonl", records)
    documents, _ = read_path(path, text_column="lines", keep_column="keep", drop_below=0.26)
    assert [document.gold_drop for document in documents] == [True, True, False, True, True, None]
    documents, _ = read_path(path, text_column="lines", keep_column="keep", drop_below=0.25)
    assert [document.gold_drop for document in documents[:2]] == [False, False]  # at the share itself: kept
    documents, _ = read_path(path, text_column="lines", keep_column="keep")
    assert {document.gold_drop for document in documents} == {None}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_list_of_lines_with_keep_flags_gives_gold_programs(tmp_path: Path, suffix: str) -> None:
    records: list[dict[str, object]] = [
        {"lines": ["Home", "Main text.", "More.", "Footer"], "keep": [0, 1, 1, 0]},
        {"lines": ["one", "two\nthree"], "keep": [1, 0]},  # three lines, two flags
        {"lines": ["all"], "keep": [1]},
    ]
    documents, source = read_path(write(tmp_path / f"p{suffix}", records), text_column="lines", keep_column="keep")
    gold = documents[0]
    assert gold.text == "Home\nMain text.\nMore.\nFooter"
    assert gold.id == f"p{suffix}:0"  # a file's id is its path in the corpus's folder
    assert gold.metadata == {}
    assert gold.gold_program is not None
    lines = execute(parse(gold.gold_program, "chunk"), gold.text.split("\n")).lines
    assert list(lines) == ["Main text.", "More."]
    assert documents[1].gold_program is None
    assert documents[1].text == "one\ntwo\nthree"
    assert documents[2].gold_program == "keep_chunk()"
    assert source.repaired == {"keep flags do not match the lines": 1}
    assert not source.failed


def test_bad_records_are_counted_and_the_others_read(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good", "id": 5, "score": 0.5}',
        b"not json",
        b'{"text": "cut',
        b"[1, 2]",
        b'{"text": null}',
        b'{"other": "no text"}',
        b'{"text": 12}',
        b'{"text": ["a", 3]}',
        b"",
        b'{"text": "bad \xff\xfe bytes"}',
        b'{"text": "lone \\ud800 surrogate", "n": NaN}',
        b'{"text": ""}',
        b'{"text": " \\t\\n "}',
        b'{"text": "\\u0000\\u0007\\u001b[31m"}',
        b"[" * 100_000,
        b'{"text": "' + b"x" * 10_000_000 + b'"}',
        b'{"text": "last, no line end"}',
    ]
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join(lines))
    documents, source = read_path(tmp_path / "bad.jsonl")
    texts = [d.text for d in documents]
    assert texts[0] == "good"
    assert documents[0].id == "5"
    assert documents[0].metadata == {"score": 0.5}
    assert texts[1] == "bad \ufffd\ufffd bytes"
    assert texts[2] == "lone ? surrogate"
    assert texts[3:6] == ["", " \t\n ", "\x00\x07\x1b[31m"]
    assert len(texts[6]) == 10_000_000
    assert texts[7] == "last, no line end"
    assert source.failed == {
        "invalid JSON": 3,
        "record is not an object": 1,
        "text is null or missing": 2,
        "text is not a string": 2,
    }
    assert source.repaired == {"invalid UTF-8": 1, "lone surrogate": 1}
    rows = {(failure["row"], failure["reason"]) for failure in source.failures}
    assert rows >= {(1, "invalid JSON"), (3, "record is not an object"), (7, "text is not a string")}
    assert {failure["path"] for failure in source.failures} == {str(tmp_path / "bad.jsonl")}
    assert len(documents) + sum(source.failed.values()) == len([line for line in lines if line])
    counts = write_block(block_path(tmp_path / "out", 0), documents)  # and all of it can be written and read back
    assert counts["documents"] == len(documents)
    assert read_all(Source.of_artifact(tmp_path / "out"))[2].text == texts[2]


def test_parquet_with_invalid_utf8_and_nulls(tmp_path: Path) -> None:
    raw = pa.array([b"ok", b"bad \xff", None], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"text": text, "day": pa.array([0, 1, 2], pa.date32())}), tmp_path / "a.parquet")
    documents, source = read_path(tmp_path / "a.parquet")
    assert [d.text for d in documents] == ["ok", "bad \ufffd"]
    assert documents[1].id == "a.parquet:1"
    assert source.failed == {"text is null or missing": 1}
    assert source.repaired == {"invalid UTF-8": 1}
    write_block(block_path(tmp_path / "out", 0), documents)
    assert read_all(Source.of_artifact(tmp_path / "out"))[0].metadata == {"day": "1970-01-01"}


def broken(tmp_path: Path, kind: str) -> tuple[Path | str, dict[str, object]]:
    """A corpus.path with one mistake, and settings."""
    data = jsonl([{"id": str(i), "text": "some text " * 20} for i in range(500)])
    file = tmp_path / "a.jsonl"
    if kind == "missing":
        return tmp_path / "nowhere.jsonl", {}
    if kind == "no match":
        return f"{tmp_path}/*.jsonl", {}
    if kind == "empty folder":
        return tmp_path, {}
    if kind == "unknown suffix":
        (tmp_path / "a.csv").write_text("text\n")
        return tmp_path / "a.csv", {}
    if kind == "unknown protocol":
        return "nosuch://bucket/a.jsonl", {}
    if kind == "unset":
        return "", {}
    if kind == "empty file":
        file.write_bytes(b"\n \n")
        return file, {}
    if kind in ("text column", "keep column"):
        file.write_bytes(data)
        return file, {"text_column": "body"} if kind == "text column" else {"keep_column": "flags"}
    if kind == "not json":
        file.write_bytes(b"hello\nworld\n")
        return file, {}
    suffix, damage = kind.split()
    whole = {"gz": gzip.compress, "zst": zstandard.compress}[suffix](data) if suffix != "parquet" else b""
    path = tmp_path / ("a.parquet" if suffix == "parquet" else f"a.jsonl.{suffix}")
    if suffix == "parquet":
        pq.write_table(pa.table({"text": [f"{i} some text" for i in range(5000)]}), path, compression="zstd")
        whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = whole[:-30] if damage == "cut" else whole[:middle] + b"\x00\xff" * 20 + whole[middle + 40 :]
    path.write_bytes(b"garbage" * 9 if damage == "wrong" else damaged)
    return path, {}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("no match", "no such file"),
        ("empty folder", "no file in this folder"),
        ("unknown suffix", "unknown suffix"),
        ("unknown protocol", "cannot be listed"),
        ("unset", "is not set"),
        ("empty file", "no documents"),
        ("text column", "its columns are id, text"),
        ("keep column", "its columns are id, text"),
        ("not json", "lines is a JSON object"),
        *[
            (f"{suffix} {damage}", "corrupt")
            for suffix in ("gz", "zst", "parquet")
            for damage in ("cut", "hit", "wrong")
        ],
    ],
)
def test_mistakes_are_told_in_one_line_with_path_and_remedy(tmp_path: Path, kind: str, words: str) -> None:
    path, settings = broken(tmp_path, kind)
    with pytest.raises(UserError) as caught:
        plan_files(corpus(path, **settings))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert message.startswith("corpus.")
    assert str(path) in message or kind == "unset"


def test_a_file_that_changed_after_planning_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", RECORDS)
    source = Source.of_files(plan_files(corpus(path)))
    path.write_bytes(path.read_bytes() + b'{"text": "later"}\n')
    with pytest.raises(UnreadableBlock, match="changed since"):
        read_all(source)
    path.unlink()
    with pytest.raises(UnreadableBlock, match="is gone"):
        read_all(source)


def pages(number: int) -> list[dict[str, object]]:
    """Records that do not compress away, so that damage hits some of them."""
    return [{"id": str(i), "text": f"{i} " + hashlib.sha512(str(i).encode()).hexdigest() * 9} for i in range(number)]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_file_that_breaks_off_fails_its_block_and_says_how_far_it_was_read(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", pages(5000))
    source = Source.of_files(plan_files(corpus(path, block_documents=30_000)))
    # not in a Parquet file's footer; without checksums a few bytes may go unseen
    damage(path, 0.3 if suffix == ".parquet" else 0.8, 4000)
    for read in (source.read, source.read_stored):
        documents = []
        with pytest.raises(UnreadableBlock) as caught:
            documents.extend(iter(read(source.blocks[0])))
        error: UnreadableBlock = pickle.loads(pickle.dumps(caught.value))  # as it comes out of a process pool
        assert 0 < error.row < 5000
        assert error.path == str(path)
        assert f"only {error.row} records" in error.reason
        assert str(path) in str(error)
        assert "\n" not in str(error)


def test_a_broken_artifact_block_fails_alike(tmp_path: Path) -> None:
    path = block_path(tmp_path, 0)
    write_block(path, [Document(str(i), str(page["text"]), {}) for i, page in enumerate(pages(3000))])
    damage(path, 0.5, 4000)
    source = Source.of_artifact(tmp_path)
    for read in (source.read, source.read_stored):
        with pytest.raises(UnreadableBlock, match=r"00000\.parquet"):
            list(read(source.blocks[0]))


def test_another_kind_of_file_among_many_is_unreadable_not_empty(tmp_path: Path) -> None:
    for number in range(files.SAMPLE_FILES * 3):
        write(tmp_path / f"{number:03d}.jsonl", RECORDS)
    wrong = tmp_path / "001.jsonl"
    wrong.write_bytes(b"\x89PNG\n\x00\x01\n")
    source = Source.of_files(plan_files(corpus(tmp_path)))
    assert source.blocks[1].path == str(wrong)
    with pytest.raises(UnreadableBlock, match="none of its 2 lines is a JSON object"):
        list(source.read(source.blocks[1]))


def test_examples_of_failures_are_few_and_of_one_block(tmp_path: Path) -> None:
    good = b'{"text": "good"}\n'
    (tmp_path / "a.jsonl").write_bytes(good + b"\n" + b"broken\n" * 50 + good)
    (tmp_path / "b.jsonl").write_bytes(good * 3 + b'{"text": 3}\n' + good)
    source = Source.of_files(plan_files(corpus(tmp_path)))
    first, second = source.blocks
    assert [d.id for d in source.read(first)] == ["a.jsonl:0", "a.jsonl:52"]  # lines as an editor counts them, from 0
    assert [failure["row"] for failure in source.failures] == list(range(2, 22))
    others = source.apart()
    list(source.read(second))
    assert source.failures == [{"path": second.path, "row": 3, "reason": "text is not a string"}]
    assert source.failed == {"invalid JSON": 50, "text is not a string": 1}
    assert not others.failed
    assert list(others.read(second)) == list(source.read(second))


def test_ids_are_paths_in_the_folder_and_stay_when_the_corpus_moves(tmp_path: Path) -> None:
    for name in ("a/part-0.jsonl", "b/part-0.jsonl", "b/deep/part-0.parquet"):
        (tmp_path / "old" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "old" / name, [{"text": "one"}, {"text": "two"}])
    documents, _ = read_path(tmp_path / "old")
    ids = [d.id for d in documents]
    assert ids == [f"{n}:{i}" for n in ("a/part-0.jsonl", "b/deep/part-0.parquet", "b/part-0.jsonl") for i in (0, 1)]
    assert [d.id for d in read_path(f"{tmp_path}/old/*/part-0.jsonl")[0]] == [i for i in ids if "deep" not in i]
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert [d.id for d in read_path(tmp_path / "new")[0]] == ids
    assert [d.id for d in read_path(f"file://{tmp_path}/new/")[0]] == ids
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "new"), "/moved", recursive=True)
    assert [d.id for d in read_path("memory://moved")[0]] == ids


def test_all_other_columns_travel_along(tmp_path: Path) -> None:
    seen = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    row: dict[str, Any] = {
        "id": "x",
        "text": "a page",
        "day": date(2024, 5, 6),
        "seen": seen,
        "price": Decimal("1.50"),
        "links": [{"href": "/a", "rel": ["x", None]}, {"href": None, "rel": []}],
        "scores": {"quality": 0.25, "deep": {"n": 3}},
        "flags": [True, None],
        "raw": b"bytes",
        "nothing": None,
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    documents, source = read_path(tmp_path / "a.parquet")
    others = {key: value for key, value in row.items() if key not in ("id", "text")}
    assert documents == [Document("x", "a page", others)]
    assert not source.repaired
    write_block(block_path(tmp_path / "out", 0), documents)
    metadata = read_all(Source.of_artifact(tmp_path / "out"))[0].metadata
    assert metadata["links"] == others["links"]
    assert metadata["scores"] == others["scores"]
    assert (metadata["day"], metadata["price"], metadata["flags"]) == ("2024-05-06", "1.50", [True, None])
    assert datetime.fromisoformat(metadata["seen"]) == seen


def test_values_beyond_python_cost_neither_the_record_nor_the_file(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"bad \xff"], pa.binary()).buffers())
    table = pa.table(
        {
            "text": ["one", "two"],
            "when": pa.array([0, 10**15], pa.timestamp("ms")),  # the year 33658
            "nested": pa.StructArray.from_arrays([bad], ["name"]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    documents, source = read_path(tmp_path / "a.parquet")
    assert [d.text for d in documents] == ["one", "two"]
    assert documents[0].metadata == {"when": datetime(1970, 1, 1), "nested": {"name": "ok"}}
    assert documents[1].metadata["nested"] == {"name": "bad \ufffd"}
    assert str(10**15) in documents[1].metadata["when"]
    assert source.repaired == {"value beyond Python's range": 1, "invalid UTF-8": 1}


@pytest.mark.parametrize("name", ["b.jsonl.gz", "b.jsonl.zst", "b.parquet", "b.jsonl"])
def test_a_corrupt_file_is_an_error_or_counts_against_the_allowance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for good in ("a.jsonl", "c.parquet"):
        write(tmp_path / good, RECORDS)
    (tmp_path / name).write_bytes(b"garbage\n" * 9)
    with pytest.raises(UserError, match=r"corpus\.allow_failed_blocks=1") as caught:
        plan_files(corpus(tmp_path))
    assert str(tmp_path / name) in str(caught.value)
    source = Source.of_files(plan_files(corpus(tmp_path, allow_failed_blocks=1)))
    warned = capsys.readouterr().err
    assert warned.startswith("warning: ")
    assert str(tmp_path / name) in warned
    assert source.allowed == 1
    broken_block = next(block for block in source.blocks if block.path.endswith(name))
    with pytest.raises(UnreadableBlock):
        list(source.read(broken_block))
    for good in ("a.jsonl", "c.parquet"):
        (tmp_path / good).unlink()
    with pytest.raises(UserError, match="corrupt"):
        plan_files(corpus(tmp_path, allow_failed_blocks=9))


def test_an_empty_compressed_file_is_a_lost_one(tmp_path: Path) -> None:
    for number in range(files.SAMPLE_FILES * 3):
        write(tmp_path / f"{number:03d}.jsonl.zst", RECORDS)
    (tmp_path / "001.jsonl.zst").write_bytes(b"")
    with pytest.raises(UserError, match=r"001\.jsonl\.zst.*empty"):
        plan_files(corpus(tmp_path))


def test_every_footer_is_read_but_of_the_other_files_only_a_sample(tmp_path: Path) -> None:
    for number in range(files.SAMPLE_FILES * 3):
        write(tmp_path / f"{number:03d}.jsonl.gz", RECORDS)
    (tmp_path / "001.jsonl.gz").write_bytes(b"garbage")
    assert len(plan_files(corpus(tmp_path))["files"]) == files.SAMPLE_FILES * 3
    (tmp_path / "000.jsonl.gz").write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"000\.jsonl\.gz"):
        plan_files(corpus(tmp_path))
    for path in tmp_path.iterdir():
        path.unlink()
        write(path.with_name(f"{path.name[:3]}.parquet"), RECORDS)
    (tmp_path / "001.parquet").write_bytes((tmp_path / "000.parquet").read_bytes()[:-4])
    with pytest.raises(UserError, match=r"001\.parquet"):
        plan_files(corpus(tmp_path))


def test_of_a_large_compressed_file_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(pages(2000)))[:-20])
    with pytest.raises(UserError, match="corrupt"):
        plan_files(corpus(path))
    monkeypatch.setattr(files, "SAMPLE_BYTES", 1 << 20)
    assert [file["size"] for file in plan_files(corpus(path))["files"]] == [path.stat().st_size]
    with pytest.raises(UserError, match="its columns are id, text"):
        plan_files(corpus(path, text_column="body"))


def test_linked_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "corpus").mkdir()
    target = write(tmp_path / "blobs" / "a.jsonl", RECORDS)
    (tmp_path / "corpus" / "x.jsonl").symlink_to(target)
    description = plan_files(corpus(tmp_path / "corpus"))
    assert description["files"][0]["size"] == target.stat().st_size
    assert len(read_all(Source.of_files(description))) == len(RECORDS)
    target.unlink()
    with pytest.raises(UserError, match="corrupt or cut off"):
        plan_files(corpus(tmp_path / "corpus"))


def test_open_source_of_task_and_its_share_of_blocks(tmp_path: Path) -> None:
    producer = Step("generate", "web", {"documents": 3})
    artifact = Task(producer, 0, store=tmp_path).out
    for index in range(3):
        write_block(block_path(artifact, index), [Document(f"d{index}", "text", {"n": 1}, index == 1, None)], gold=True)
    publish_json(artifact / "artifact.json", {})
    step = Step("filter", "f", {}, {"corpus": producer.address}, tasks=2)
    source = open_source(Task(step, 0, store=tmp_path))
    shares = [[b.index for b in task_blocks(source.blocks, Task(step, i, store=tmp_path))] for i in range(2)]
    assert shares == [[0, 2], [1]]
    assert [d.gold_drop for d in read_all(source)] == [False, True, False]
    write(tmp_path / "a.jsonl", RECORDS)
    files = Step("filter", "f", {"source": plan_files(corpus(tmp_path / "a.jsonl"))})
    assert len(read_all(open_source(Task(files, 0, store=tmp_path)))) == len(RECORDS)
