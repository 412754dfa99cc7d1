"""`python -m prox_hpc.programs execute`: programs executed in a pipe, one JSON object a line in and out.

An edge of the otherwise pure room, for trying programs from a shell and for other languages. A bad input line gets an
error object in its place, so that input and output lines always correspond and a stream of millions goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prox_hpc.programs.execute import execute
from prox_hpc.programs.language import PROFILES, STAGES, operation_name
from prox_hpc.programs.parse import parse


class BadLine(ValueError):
    """An input line that is no request; the message says why."""


def answer_lines(lines: Iterable[bytes], profile: str) -> Iterator[str]:
    """One JSON text for each input line: the answer to a request, or `{"id", "error"}`."""
    for line in lines:
        yield json.dumps(_answer_line(line, profile))


def _answer_line(line: bytes, profile: str) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"id": None, "error": f"not JSON: {error}"}
    if not isinstance(request, dict):
        return {"id": None, "error": "not a JSON object"}
    try:
        return _answer(request, profile)
    except BadLine as error:
        return {"id": request.get("id"), "error": str(error)}


def _answer(request: dict[str, Any], profile: str) -> dict[str, Any]:
    stage = request.get("stage")
    if "id" not in request:
        raise BadLine("id is missing")
    if stage not in STAGES:
        raise BadLine('stage is neither "doc" nor "chunk"')
    text = _field(request, "text", str, None)
    truncated = _field(request, "truncated", bool, False)
    first_line = _field(request, "first_line", int, 0)
    if first_line < 0:
        raise BadLine("first_line is negative")
    program = parse(_field(request, "program", str, None), stage, truncated=truncated)
    result = execute(program, text.split("\n"), first_line=first_line, profile=profile)
    operations = [
        {"op": operation_name(done.op), "outcome": done.outcome, "reason": done.reason} for done in result.outcomes
    ]
    refined = None if result.dropped else "\n".join(result.lines)
    return {"id": request["id"], "status": result.status, "text": refined, "operations": operations}


def _field(request: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    """A field of exactly this JSON type (true is no integer); missing gives the default, where there is one."""
    value = request.get(name, default)
    if type(value) is not kind:
        raise BadLine(f"{name} is not of type {kind.__name__}" if name in request else f"{name} is missing")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m prox_hpc.programs", description="The program language in a pipe.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "execute",
        help="execute programs from standard input",
        description='Reads JSON lines {"id", "stage": "doc"|"chunk", "text", "program"} and optionally "truncated" '
        '(default false) and "first_line" (default 0); writes JSON lines {"id", "status", "text" (null if dropped), '
        '"operations"} in the same order. Document checks are off. A bad line gets {"id", "error"}.',
    )
    command.add_argument("--profile", choices=PROFILES, default="v1")
    options = parser.parse_args(arguments)
    try:
        for answer in answer_lines(sys.stdin.buffer, options.profile):
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()  # whoever talks to us through two pipes waits for this line
    except BrokenPipeError:
        # The reader has gone; without this Python complains again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
