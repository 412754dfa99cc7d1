"""Reading corpora: every format, every kind of bad record, every mistake that `plan_files` must tell."""

import gzip
import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from prox_hpc.config import Corpus
from prox_hpc.corpus.read import Document, Source, open_source, plan_files, task_blocks
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


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
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
    path = write(tmp_path / "a.parquet", RECORDS)
    source = Source.of_files(plan_files(corpus(path, block_documents=size)))
    assert [block.index for block in source.blocks] == list(range(-(-len(RECORDS) // size)))
    assert [d.id for d in read_all(source)] == [r["id"] for r in RECORDS]
    last = source.blocks[-1]
    assert [d.id for d in source.read(last)] == [r["id"] for r in RECORDS[last.start :]]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_limit_counts_per_file(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a{suffix}", RECORDS[:5])
    write(tmp_path / f"b{suffix}", RECORDS[5:])
    documents, _ = read_path(tmp_path, limit=3, block_documents=2)
    assert [d.id for d in documents] == ["d0", "d1", "d2", "d5", "d6"]


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
    assert gold.id == f"p{suffix}:0"
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
    with pytest.raises(UserError, match="changed since"):
        read_all(source)


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
