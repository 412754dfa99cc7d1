"""`python -m prox_hpc.programs`: programs executed in a pipe, and compared with what the released executor does.

An edge of the otherwise pure room, for trying programs from a shell and for other languages: one JSON object a line in
and out. A bad input line gets an error object in its place, so that lines correspond and a stream of millions goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from prox_hpc.errors import EXIT_USER_ERROR, UserError
from prox_hpc.programs.compare import Comparison, Tally, compare_document
from prox_hpc.programs.document import DEFAULT_CHECKS, ChunkProgram, DocumentChecks
from prox_hpc.programs.execute import execute
from prox_hpc.programs.language import DEFAULT_CAPS, PROFILES, STAGES, Caps, operation_name
from prox_hpc.programs.parse import parse
from prox_hpc.programs.readings import Cause

Answer = dict[str, Any]
T = TypeVar("T")

_CALLS_SHOWN = 5
_CHARACTERS_SHOWN = 200
_NO_CHECKS = DocumentChecks(max_removed=2, min_words=0)
_MOST_LINES_BEFORE = 100_000
"""Of a lone chunk's `first_line` when it is compared, since the released executor wants the lines before it too."""

EXECUTE = """\
Reads JSON lines {"id", "stage": "doc"|"chunk", "text", "program"} and optionally "truncated" (default false: the
program was cut off by the token limit) and "first_line" (default 0: the number of the text's first line). Writes, in
order and one for each line, {"id", "status", "text" (null if dropped), "operations": [{"op", "outcome", "reason"}]}.
Document checks are off. A line that is no such object gets {"id", "error"} in its place.
"""
EXECUTE_EXAMPLE = """\
example:
  $ echo '{"id": 1, "stage": "chunk", "text": "Home\\nTea is hot.", "program": "remove_lines(0, 0)"}' |
      python -m prox_hpc.programs execute
  {"id": 1, "status": "ok", "text": "Tea is hot.", "operations": [{"op": "remove_lines", "outcome": "applied", ...
"""
COMPARE = """\
Shows where the language (v1) and the released ProX executor (prox_v1) make different documents of the same programs,
and why. Reads the recorded programs of a run (a run folder or a refine artifact), or JSON lines: what `execute` reads
(document checks off), or whole documents {"id", "text", "chunks": [{"first_line", "line_count", "program",
"truncated"}]} and optionally "doc_program".
"""
COMPARE_EXAMPLE = """\
A document's causes are a smallest set that, mended in the released executor, gives the result of v1.
examples:
  python -m prox_hpc.programs compare outputs/runs/quickstart
  python -m prox_hpc.programs compare programs.jsonl --json --differ-only > differences.jsonl
"""


class BadLine(ValueError):
    """An input line that is no request; the message says why."""


def answer_lines(lines: Iterable[bytes], profile: str) -> Iterator[str]:
    """One JSON text for each input line: the answer to a request, or `{"id", "error"}`."""
    for line in lines:
        yield _to_json(_attempt(line, lambda request: _execute(request, profile)))


def _attempt(line: bytes, work: Callable[[Answer], T]) -> T | Answer:
    """`work` done on the request in a line, or an error object."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"id": None, "error": f"not JSON: {error}"}
    if not isinstance(request, dict):
        return {"id": None, "error": "not a JSON object"}
    try:
        if "id" not in request:
            raise BadLine("id is missing")
        return work(request)
    except BadLine as error:
        return {"id": request.get("id"), "error": str(error)}


def _to_json(answer: Answer) -> str:
    """In ASCII, on one line. An id may be what JSON cannot say (Python reads NaN and 1e999) or is nested too deeply."""
    try:
        return json.dumps(answer, allow_nan=False)
    except (ValueError, RecursionError) as error:
        return json.dumps({"id": None, "error": f"id cannot be written as JSON: {error}"})


def _execute(request: Answer, profile: str) -> Answer:
    stage = _stage(request)
    text = _field(request, "text", str)
    first_line = _number(request, "first_line", 0)
    program = parse(_field(request, "program", str), stage, truncated=_field(request, "truncated", bool, False))
    result = execute(program, text.split("\n"), first_line=first_line, profile=profile)
    operations = [
        {"op": operation_name(done.op), "outcome": done.outcome, "reason": done.reason} for done in result.outcomes
    ]
    refined = None if result.dropped else "\n".join(result.lines)
    return {"id": request["id"], "status": result.status, "text": refined, "operations": operations}


def _stage(request: Answer) -> Any:
    stage = request.get("stage")
    if stage not in STAGES:
        raise BadLine('stage is neither "doc" nor "chunk"')
    return stage


_REQUIRED: Any = object()


def _field(request: Answer, name: str, kind: type, default: Any = _REQUIRED) -> Any:
    """A field of exactly this JSON type (true is no integer); missing gives the default, where there is one."""
    if name not in request:
        if default is _REQUIRED:
            raise BadLine(f"{name} is missing")
        return default
    if type(request[name]) is not kind:
        raise BadLine(f"{name} is not of type {kind.__name__}")
    return request[name]


def _number(request: Answer, name: str, default: Any = _REQUIRED) -> int:
    number: int = _field(request, name, int, default)
    if number < 0:
        raise BadLine(f"{name} is negative")
    return number


class Case(NamedTuple):
    """A document to be compared; the fields behind `id` are arguments of `compare_document`."""

    id: Any
    text: str
    chunk_programs: Sequence[ChunkProgram]
    doc_program: str | None = None
    doc_truncated: bool = False
    drop: bool = False
    checks: DocumentChecks = DEFAULT_CHECKS
    caps: Caps = DEFAULT_CAPS

    def compare(self) -> Comparison:
        arguments = self._asdict()
        del arguments["id"], arguments["text"], arguments["chunk_programs"]
        return compare_document(self.text, self.chunk_programs, **arguments)


def _case(request: Answer) -> Case:
    """A request as a document: what `execute` takes, or a whole document with its chunks."""
    text = _field(request, "text", str)
    if "stage" in request:
        return _lone_program(request, text)
    chunks = _field(request, "chunks", list)
    if not all(isinstance(chunk, dict) for chunk in chunks):
        raise BadLine("chunks holds something that is no object")
    doc_program = None if request.get("doc_program") is None else _field(request, "doc_program", str)
    return Case(request["id"], text, [_chunk(chunk) for chunk in chunks], doc_program)


def _chunk(chunk: Answer) -> ChunkProgram:
    program = None if chunk.get("program") is None else _field(chunk, "program", str)
    truncated = _field(chunk, "truncated", bool, False)
    return ChunkProgram(_number(chunk, "first_line"), _number(chunk, "line_count"), program, truncated)


def _lone_program(request: Answer, text: str) -> Case:
    program = _field(request, "program", str)
    truncated = _field(request, "truncated", bool, False)
    first_line = _number(request, "first_line", 0)
    if _stage(request) == "doc":
        return Case(request["id"], text, (), program, truncated, checks=_NO_CHECKS)
    if first_line > _MOST_LINES_BEFORE:
        raise BadLine(f"first_line is beyond {_MOST_LINES_BEFORE}; compare the whole document")
    chunk = ChunkProgram(first_line, text.count("\n") + 1, program, truncated)
    return Case(request["id"], "\n" * first_line + text, (chunk,), checks=_NO_CHECKS)


def _recorded_cases(path: Path, refiner: str | None) -> Iterator[Case]:
    """The documents of a finished refine step. UserError if there is none at this path."""
    from prox_hpc.recorded import open_recorded

    recorded = open_recorded(path, refiner)
    execution = recorded.execution
    for block in recorded.source.blocks:
        for document, row in recorded.read(block):
            score = row["doc_score"]
            yield Case(
                document.id,
                document.text,
                [
                    ChunkProgram(c["first_line"], c["line_count"], c["program"], c["truncated"], c["oversized"])
                    for c in row["chunks"]
                ],
                drop=execution.doc and score is not None and score < execution.threshold,
                checks=execution.checks,
                caps=execution.caps,
            )


def _cases(source: str, refiner: str | None) -> Iterator[Case | Answer]:
    """Documents to be compared, error objects among them; UserError if the source cannot be opened."""
    if source != "-" and Path(source).is_dir():
        yield from _recorded_cases(Path(source), refiner)
        return
    if refiner is not None:
        raise UserError(f"--refiner {refiner}: {source} is no run folder; leave the option out")
    try:
        with sys.stdin.buffer if source == "-" else open(source, "rb") as lines:
            for line in lines:
                yield _attempt(line, _case)
    except OSError as error:
        remedy = "give a run folder, a file of JSON lines, or - for standard input"
        raise UserError(f"{source}: {error.strerror}; {remedy}") from None


def _compare(given: argparse.Namespace) -> None:
    """Compare document by document; in memory are one document, the counts and the examples."""
    tally, bad = Tally(), 0
    examples: list[tuple[Any, Comparison]] = []
    for case in _cases(given.source, given.refiner):
        if not isinstance(case, Case):
            bad += 1
            print(_to_json(case)) if given.json else print(f"bad line: {case['error']}", file=sys.stderr)
            continue
        comparison = case.compare()
        new_cause = any(not tally.causes[cause] for cause in comparison.causes)
        tally.add(comparison)
        if given.json and (comparison.differ or not given.differ_only):
            print(_to_json(_as_data(case.id, comparison)))
        elif comparison.differ and not given.json and (len(examples) < given.sample or new_cause):
            examples.append((case.id, comparison))
    if given.json:
        print(_to_json({"summary": {**tally.summary(), "bad_lines": bad}}))
    else:
        _show(tally, bad, examples)


def _as_data(identity: Any, comparison: Comparison) -> Answer:
    """A comparison as plain data."""
    if not comparison.differ:
        return {"id": identity, "differ": False}
    return {
        "id": identity,
        "differ": True,
        "causes": comparison.causes,
        "v1": {"outcome": comparison.v1.outcome, "reason": comparison.v1.reason},
        "prox_v1": {"outcome": comparison.prox_v1.outcome, "reason": comparison.prox_v1_reason},
        "calls": [asdict(call) for call in comparison.calls],
    }


def _show(tally: Tally, bad: int, examples: list[tuple[Any, Comparison]]) -> None:
    """The counts as a table, then the examples."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("cause", title="where v1 and prox_v1 differ, and why", title_justify="left")
    for name in ("documents", "share", "well-formed programs"):
        table.add_column(name, justify="right")
    for cause in Cause:
        documents, programs = tally.causes[cause], tally.misreadings[cause]
        if documents or programs:
            table.add_row(cause, f"{documents:,}", _share(documents, tally.documents), f"{programs:,}")
    console = Console(highlight=False)
    console.print(
        f"{tally.documents:,} documents, {tally.differ:,} differ ({_share(tally.differ, tally.documents)}); "
        f"prox_v1 reverted {tally.reverted:,} for too many errors" + (f"; {bad:,} bad lines" if bad else ""),
        soft_wrap=True,
    )
    console.print(
        f"{tally.well_formed:,} well-formed programs (status ok in v1), of which the released executor misreads "
        f"{tally.misread:,} ({_share(tally.misread, tally.well_formed)})",
        soft_wrap=True,
    )
    console.print(table)
    for identity, comparison in examples:
        for line in _example_lines(identity, comparison):
            console.print(Text(_printable(line)), soft_wrap=True)


def _example_lines(identity: Any, comparison: Comparison) -> Iterator[str]:
    yield ""
    yield f"{identity}: {', '.join(comparison.causes)}"
    yield f"  v1: {_fate(comparison.v1.outcome, comparison.v1.reason)}"
    yield f"  prox_v1: {_fate(comparison.prox_v1.outcome, comparison.prox_v1_reason)}"
    for call in comparison.calls[:_CALLS_SHOWN]:
        yield f"  chunk from line {call.chunk}, program line {call.line}: {call.text[:_CHARACTERS_SHOWN]}"
        yield f"    v1 {call.v1}; prox_v1 {call.prox_v1[:_CHARACTERS_SHOWN]}"
    if len(comparison.calls) > _CALLS_SHOWN:
        yield f"  and {len(comparison.calls) - _CALLS_SHOWN:,} more calls"


def _printable(text: str) -> str:
    """What a model wrote, harmless to a terminal: no controls, no marks of direction, no lone surrogates."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _fate(outcome: str, reason: str | None) -> str:
    return f"{outcome} ({reason})" if reason else outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m prox_hpc.programs", description="The program language in a pipe, and the released executor."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "execute",
        help="execute programs from standard input",
        description=EXECUTE,
        epilog=EXECUTE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--profile", choices=PROFILES, default="v1", help="rules of execution (default v1)")
    command = commands.add_parser(
        "compare",
        help="show where the released executor makes other documents of the same programs",
        description=COMPARE,
        epilog=COMPARE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("source", nargs="?", default="-", metavar="RUN|FILE.jsonl|-", help="default: standard input")
    command.add_argument("--refiner", metavar="NAME", help="whose programs, if the run has several")
    command.add_argument(
        "--sample", type=int, default=5, metavar="N", help="examples shown, besides one of each other cause (default 5)"
    )
    command.add_argument("--json", action="store_true", help="one JSON line a document, at the end the summary")
    command.add_argument("--differ-only", action="store_true", help="with --json: only documents that differ")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    given = _parser().parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever the terminal's encoding is
    try:
        if given.command == "compare":
            _compare(given)
        else:
            for answer in answer_lines(sys.stdin.buffer, given.profile):
                print(answer, flush=True)  # whoever talks to us through two pipes waits for this line
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone; without this Python complains again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
