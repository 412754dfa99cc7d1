"""The command for pipes: one line out for each line in, whatever comes in."""

import json
import subprocess
import sys

import pytest

from prox_hpc.programs.__main__ import answer_lines


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
        request(stage="page"),
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


def test_the_stream_goes_on_in_order():
    lines = [json.dumps(request(id=1)), "rubbish", "", json.dumps(request(id=3, text="\r\n\u2028x"))]
    done = subprocess.run(
        [sys.executable, "-m", "prox_hpc.programs", "execute", "--profile", "v1"],
        input="\n".join(lines).encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [answer["id"] for answer in answers] == [1, None, None, 3]
    assert answers[3]["text"] == "\u2028x"
    assert done.stderr == b""
