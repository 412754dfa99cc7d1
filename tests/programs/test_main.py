"""The commands: `execute` gives one line for each line in, whatever comes in; `compare` tells where and why."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from prox_hpc.programs.__main__ import answer_lines, main

_SPEC = importlib.util.spec_from_file_location(
    "inspection_conftest", Path(__file__).parents[1] / "inspection" / "conftest.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
_INSPECTION = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_INSPECTION)
run = _INSPECTION.run


def command(*arguments, **options):
    """The command in a process of its own, as a user starts it."""
    line = [sys.executable, "-m", "prox_hpc.programs", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, timeout=60, **options)


def ask(request, profile="v1"):
    line = request if isinstance(request, bytes) else json.dumps(request).encode()
    (answer,) = answer_lines([line], profile)
    assert "\n" not in answer
    return json.loads(answer)


def request(**fields):
    return {"id": "a", "stage": "chunk", "text": "menu\ntea", "program": "remove_lines(0, 0)", **fields}


def test_an_answer_has_just_these_fields():
    assert ask(request(url="http://ignored")) == {
        "id": "a",
        "status": "ok",
        "text": "tea",
        "operations": [{"op": "remove_lines", "outcome": "applied", "reason": None}],
    }


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"program": "remove_lines(0, 1)"}, "ok", ""),  # document checks are off
        ({"program": "remove_lines(0, 9)"}, "partial", "menu\ntea"),
        ({"program": "remove_lines(0, 0)\nremo"}, "malformed", "menu\ntea"),
        ({"program": "remove_lines(0, 0)\nremo", "truncated": True}, "truncated", "tea"),
        ({"first_line": 5, "program": "remove_lines(5, 5)"}, "ok", "tea"),
        ({"first_line": 5}, "partial", "menu\ntea"),
        ({"stage": "doc", "program": "drop_doc()"}, "ok", None),
        ({"stage": "doc", "program": "keep_doc()"}, "ok", "menu\ntea"),
        ({"program": "drop_doc()"}, "malformed", "menu\ntea"),
        ({"text": "\ud800", "program": "keep_chunk()"}, "ok", "\ud800"),
        ({"id": 7, "program": "(" * 10**5}, "malformed", "menu\ntea"),
        ({"id": None, "text": ""}, "ok", ""),
        ({"first_line": 10**30, "program": f"remove_lines({10**18 - 1}, {10**18 - 1})"}, "partial", "menu\ntea"),
        ({"text": "a\r\nb\u2028c\x85\n", "program": "remove_lines(0, 0)"}, "ok", "b\u2028c\x85\n"),
        ({"text": "x" * 5_000_000, "program": "keep_chunk()"}, "ok", "x" * 5_000_000),
    ],
)
def test_statuses_and_texts(fields, status, text):
    answer = ask(request(**fields))
    assert (answer["id"], answer["status"], answer["text"]) == (fields.get("id", "a"), status, text)


def test_profiles():
    assert ask(request(program="normalize('tea')"), "deletion_only")["status"] == "partial"
    assert ask(request(program="remove_lines(start=0, end=12"), "prox_v1")["text"] == ""


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"rubbish",
        b"\xff\xfe",
        b"[1]",
        b"null",
        b"[" * 100_000,
        b'{"id": ' + b"9" * 5000 + b"}",
        b"{}",
        {"id": "a"},
        {key: value for key, value in request().items() if key != "id"},
        {**request(), "id": float("nan")},
        {**request(), "id": float("inf")},
        {**request(), "first_line": float("nan")},
        b'{"id": "\xff", "stage": "chunk", "text": "", "program": ""}',
        json.dumps(request()).encode()[:-1],
        json.dumps(request()).encode() + b"{}",
        request(stage="page"),
        request(stage=None),
        request(text=["menu"]),
        request(truncated="false"),
        request(truncated=None),
        request(first_line="0"),
        request(stage=["doc"]),
        request(text=None),
        request(program=3),
        request(truncated=1),
        request(first_line=True),
        request(first_line=1.5),
        request(first_line=-1),
    ],
)
def test_a_bad_line_gets_an_error_object(line):
    answer = ask(line)
    assert set(answer) == {"id", "error"}
    assert answer["error"]


def test_a_bad_line_that_has_an_id_is_told_with_it():
    assert ask(request(text=3)) == {"id": "a", "error": "text is not of type str"}
    assert ask({"id": [1], "stage": "doc", "text": ""}) == {"id": [1], "error": "program is missing"}


def test_an_id_may_be_nested_as_deeply_as_json_can_be_read_and_written():
    for depth in range(900, 1100, 3):
        line = json.dumps(request()).replace('"a"', "[" * depth + "]" * depth).encode()
        assert set(ask(line)) in ({"id", "error"}, {"id", "status", "text", "operations"})


def test_of_a_repeated_key_the_last_counts_as_everywhere_in_python():
    line = b'{"id": 1, "id": 2, "stage": "chunk", "text": "a", "program": "rubbish", "program": "keep_chunk()"}'
    assert (ask(line)["id"], ask(line)["status"]) == (2, "ok")


def test_unknown_fields_are_ignored_whatever_they_hold():
    line = json.dumps(request(score=float("nan"), op={"deep": [None]}, error="x", status=1)).encode()
    assert ask(line)["status"] == "ok"


def test_the_stream_goes_on_in_order():
    lines = [json.dumps(request(id=1)), "rubbish", "", json.dumps(request(id=3, text="\r\n\u2028x"))]
    done = command("execute", "--profile", "v1", input="\n".join(lines).encode(), check=True)
    answers = [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]
    assert [answer["id"] for answer in answers] == [1, None, None, 3]
    assert answers[3]["text"] == "\u2028x"
    assert done.stderr == b""
    assert command("execute", input=b"", check=True).stdout == b""


def test_whoever_waits_for_an_answer_gets_it_before_sending_more():
    line = [sys.executable, "-m", "prox_hpc.programs", "execute"]
    buffered = {"PATH": "/usr/bin"}  # without PYTHONUNBUFFERED, which would hide what is not flushed
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=buffered) as process:
        for number in range(3):
            process.stdin.write(json.dumps(request(id=number)).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_a_reader_that_goes_away_ends_it_quietly():
    line = f"yes '{json.dumps(request())}' | {sys.executable} -m prox_hpc.programs execute | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, timeout=60)
    assert json.loads(done.stdout)["status"] == "ok"
    assert done.stderr == b""


@pytest.mark.parametrize("name", ["execute", "compare"])
def test_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"python -m prox_hpc.programs {name}" in capsys.readouterr().out.split("\nexample")[1]


PAGE = "\n".join(f"line {number} says that the cat sat on it" for number in range(6))
DOCUMENTS = [
    {"id": "same", "text": PAGE, "chunks": [{"first_line": 0, "line_count": 6, "program": "keep_chunk()"}]},
    {
        "id": "cut\x1b[31m",
        "text": PAGE,
        "chunks": [
            {"first_line": 0, "line_count": 3, "program": None},
            {"first_line": 3, "line_count": 3, "program": "remove_lines(start=3, end=33", "truncated": True},
        ],
    },
    {"id": "doc", "text": PAGE, "chunks": [], "doc_program": "a dropdown"},
    {"id": "chunk", "stage": "chunk", "text": "menu\ntea", "program": "remove_lines(7, 7)", "first_line": 7},
    {"id": "small", "stage": "chunk", "text": "menu\ntea", "program": "keep_chunk()"},  # checks are off
    {"id": "lone", "stage": "doc", "text": "tea", "program": "I would drop it"},
]
BAD = [
    "rubbish",
    {"id": 1, "text": "a"},
    {"id": 1, "text": "a", "chunks": [1]},
    {"id": 1, "text": "a", "chunks": [{"first_line": 0, "program": ""}]},
    {"id": 1, "text": "a", "chunks": [{"first_line": -1, "line_count": 1, "program": ""}]},
    {"id": 1, "text": "a", "chunks": [], "doc_program": 3},
    {"id": 1, "stage": "chunk", "text": "a", "program": "", "first_line": 10**9},
]


@pytest.fixture
def lines(tmp_path):
    """A file of documents with bad lines among them."""
    path = tmp_path / "documents.jsonl"
    rows = [row for pair in zip(DOCUMENTS, BAD, strict=False) for row in pair] + BAD[len(DOCUMENTS) :]
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_compare_gives_an_object_for_each_document_and_a_summary(lines, capsys):
    assert main(["compare", str(lines), "--json"]) == 0
    *answers, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    good = [answer for answer in answers if "error" not in answer]
    assert len(answers) == len(DOCUMENTS) + len(BAD)
    assert [answer["id"] for answer in good] == [row["id"] for row in DOCUMENTS]
    assert {answer["id"]: answer.get("causes") for answer in good} == {
        "same": None,
        "cut\x1b[31m": ["call cut off"],
        "doc": ["drop in the program text"],
        "chunk": ["positional arguments"],
        "small": None,
        "lone": ["drop in the program text"],
    }
    assert good[1]["v1"] == {"outcome": "kept", "reason": None}
    assert good[1]["prox_v1"] == {"outcome": "edited", "reason": None}
    assert good[1]["calls"] == [
        {
            "chunk": 3,
            "line": 0,
            "text": "remove_lines(start=3, end=33",
            "causes": ["call cut off"],
            "v1": "nothing (truncated: last call cut off)",
            "prox_v1": "removed lines 3 to 3; 1 error",
        }
    ]
    summary = last["summary"]
    assert (summary["documents"], summary["differ"], summary["bad_lines"]) == (6, 4, 7)
    assert summary["causes"] == {"positional arguments": 1, "call cut off": 1, "drop in the program text": 2}
    assert (summary["well_formed"], summary["misread"]) == (3, 1)


def test_compare_may_leave_out_what_is_the_same(lines, capsys):
    assert main(["compare", str(lines), "--json", "--differ-only"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["id"] for answer in answers if answer.get("differ")] == ["cut\x1b[31m", "doc", "chunk", "lone"]
    assert not [answer for answer in answers if answer.get("differ") is False]


def test_compare_shows_counts_and_examples(lines):
    done = command("compare", "-", "--sample", "1", input=lines.read_bytes(), check=True, env={"PATH": "/usr/bin"})
    text = done.stdout.decode()
    assert "6 documents, 4 differ (66.7%)" in text
    assert "7 bad lines" in text
    assert "misreads 1 (33.3%)" in text
    assert "drop in the program text" in text
    assert "v1 nothing (truncated: last call cut off); prox_v1 removed lines 3 to 3; 1 error" in text
    assert "\nchunk: positional arguments\n" in text  # beyond the sample, but the first of its cause
    assert "\nlone: " not in text
    assert "\x1b" not in text  # of the id
    assert len(done.stderr.splitlines()) == len(BAD)


def test_compare_reads_the_recorded_programs_of_a_run(run, capsys):
    assert main(["compare", str(run), "--json"]) == 0
    *answers, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    causes = {answer["id"]: answer.get("causes") for answer in answers}
    assert causes["menu"] == causes["short"] == ["positional arguments"]
    assert causes["junk"] is None  # dropped by its score, whoever executes
    assert last["summary"]["documents"] == len(answers) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/missing.jsonl"], "missing.jsonl: No such file"),
        (["{}"], "is not a run folder"),
        (["{}/documents.jsonl", "--refiner", "nano"], "--refiner nano"),
    ],
)
def test_compare_names_what_it_cannot_open(lines, arguments, message, capsys):
    assert main(["compare", *(argument.format(lines.parent) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
