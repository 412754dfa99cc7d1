r"""Random and mutated programs through the program language, every promise checked on each one.

A refiner's output is hostile input, so what `prox_hpc.programs` promises (nothing raises, time and growth are bounded,
what was not named is untouched, a malformed program changes nothing) is tried on millions of texts that are nearly
programs: real ones mutated, generated ones, and the things that break parsers.

    python tools/fuzz_programs.py --programs 300_000 --processes 2 --seed 1 --seeds requests.jsonl

Prints JSON: programs, rate, the slowest call, counts by status and reason, failures; exit status 1 if there are any. A
failing case is made smaller and written to `--found`, where `tests/programs/test_found_cases.py` runs it ever after.
Batch `b` of seed `s` is the same wherever and whenever it runs. `check_case` is what `fuzz_atheris.py` calls, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import ast_programs

from prox_hpc.programs import (
    DEFAULT_CAPS,
    PROFILES,
    STATUSES,
    Caps,
    ChunkProgram,
    ChunkResult,
    DocumentChecks,
    DocumentResult,
    Normalize,
    Program,
    RemoveLines,
    Stage,
    execute,
    parse,
    refine_document,
    render,
)
from prox_hpc.programs.language import STAGES

FOUND = Path(__file__).resolve().parents[1] / "tests" / "programs" / "found"
BATCH = 1_000
WIDE = Caps(program_bytes=10**8, operations=10**6, string_chars=10**6)
"""Caps that let a megabyte program in, to show that time is linear without them."""

MS_PER_KB = 10.0
SLOW_CASES = 8
OUTCOMES = ("applied", "refused", "no_change")


@dataclass(frozen=True, slots=True)
class Case:
    """A program and the lines it is run on, the first of which is line `first_line`; wide: under the caps `WIDE`."""

    program: str
    text: str
    first_line: int = 0
    wide: bool = False

    @property
    def caps(self) -> Caps:
        return WIDE if self.wide else DEFAULT_CAPS

    @property
    def kilobytes(self) -> float:
        """Program plus text; at least 1, because the clock and Python's own housekeeping are no one's fault."""
        return max(1_000, len(self.program) + len(self.text)) / 1_000


class Violation(AssertionError):
    """A promise that a case breaks; the message says which, in words that do not depend on the case."""


class Hang(Violation):
    """A case used many times the processor time it may."""


# --- promises ----------------------------------------------------------------------------------------------------


def check_case(case: Case, counts: Counter[str] | None = None) -> None:
    """Parse and execute in both stages, cut off or not, under every profile, alone and as a document.

    Raises `Violation`, or whatever the program language raised. counts: statuses and reasons are added to it.
    """
    counts = Counter() if counts is None else counts
    lines = case.text.split("\n")
    for truncated in (False, True):
        # The released executor knows nothing of truncation: once is enough.
        profiles = PROFILES if not truncated else ("v1", "deletion_only")
        for stage in STAGES:
            program = parse(case.program, stage, truncated=truncated, caps=case.caps)
            _check_program(program, case, stage, truncated)
            counts[f"{stage} {program.status}: {program.reason}"] += 1
            for profile in profiles:
                result = execute(program, lines, first_line=case.first_line, profile=profile, caps=case.caps)
                check_result(result, program, case, lines, profile)
                if profile == "v1" and result.outcomes:
                    counts[f"{stage} {result.status}"] += 1
                    counts.update([f"operation {done.outcome}: {done.reason}" for done in result.outcomes])
        if not truncated or program.reason == "last call cut off":  # else the document is the same as without
            _check_document(case, lines, program, profiles)


def _require(promise: bool, message: str) -> None:
    if not promise:
        raise Violation(message)


def _check_program(program: Program, case: Case, stage: Stage, truncated: bool) -> None:
    _require(program.status in (("truncated" if truncated else "ok"), "malformed"), "status of a parsed program")
    _require(program.text is case.program and program.stage == stage, "a program knows its text and stage")
    if program.status == "malformed":
        _require(program.operations == () and bool(program.reason), "malformed: no operation, but a reason")
        return
    _require(len(program.operations) <= case.caps.operations, "more operations than the cap")
    if program.operations and not truncated:
        again = parse(render(program.operations), stage, caps=WIDE)
        _require(again.operations == program.operations, "reading undoes writing")


def check_result(result: ChunkResult, program: Program, case: Case, lines: list[str], profile: str) -> None:
    """Raises `Violation` where a result of the case's program on its lines is not what is promised."""
    _require(result.status in STATUSES, "status of a result")
    if program.stage == "chunk":
        _require(not result.dropped, "a chunk program dropped the document")
    if profile == "prox_v1":
        most = 5 * len(case.text) + 65_536
    else:
        most = int(len(case.text) * (1 + case.caps.growth_ratio)) + case.caps.growth_chars
        _check_operations(result, program, case, lines)
    _require(sum(map(len, result.lines)) + len(result.lines) - 1 <= most, "growth beyond the bound")


def _check_operations(result: ChunkResult, program: Program, case: Case, lines: list[str]) -> None:
    """Outcomes, spans and lines agree: what is left is every line not removed, with the replacements in order."""
    if program.status == "malformed":
        _require(result.lines == tuple(lines) and not result.dropped, "malformed: the text is intact")
        _require(result.status == "malformed" and not result.outcomes and not result.removed, "malformed: nothing done")
        return
    _require(tuple(done.op for done in result.outcomes) == program.operations, "one outcome for each operation")
    refused = any(done.outcome == "refused" for done in result.outcomes)
    wanted = "partial" if refused and program.status == "ok" else program.status
    _require(result.status == wanted, "partial: an operation was refused")
    gone: set[int] = set()
    expected = lines
    for done in result.outcomes:
        _require(done.outcome in OUTCOMES, "outcome of an operation")
        _require((done.reason is None) <= (done.outcome != "refused"), "refused without a reason")
        if done.outcome == "applied" and isinstance(done.op, RemoveLines):
            gone.update(range(done.op.line_start - case.first_line, done.op.line_end - case.first_line + 1))
        elif done.outcome == "applied" and isinstance(done.op, Normalize):
            source, target = done.op.source_str, done.op.target_str
            _require(not {"\n", "\r", "\0"} & set(target) and _encodable(target), "a target that makes text worse")
            expected = [line.replace(source, target) for line in expected]
    if result.dropped:
        _require(result.lines == (), "a dropped document has no lines")
        return
    if gone:
        _require(min(gone) >= 0 and max(gone) < len(lines), "a removed line outside the chunk")
        expected = [line for number, line in enumerate(expected) if number not in gone]
    _require(list(result.lines) == expected, "every other line byte for byte")
    spans = [number - case.first_line for start, end in result.removed for number in range(start, end + 1)]
    _require(spans == sorted(gone), "removed spans: the removed lines")


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


CHECKS_OFF = DocumentChecks(max_removed=2, min_words=0)


def _document_chunks(case: Case, line_count: int, truncated: bool) -> list[ChunkProgram]:
    """The program on two chunks of the document, with a line between them that no chunk holds, and a misplaced one."""
    half = line_count // 2
    chunks = [ChunkProgram(0, half, case.program, truncated)] if half else []
    first = min(half + 1, line_count - 1) if half else 0
    chunks.append(ChunkProgram(first, line_count - first, case.program, truncated))
    chunks.append(ChunkProgram(first, 1, case.program))
    return chunks


def _check_document(case: Case, lines: list[str], program: Program, profiles: Sequence[str]) -> None:
    """A document is its chunks one after the other; the checks drop it whole or not at all.

    program: the chunk-stage program, which is executed on the whole document, too.
    """
    truncated = program.status == "truncated"
    whole = [ChunkProgram(0, len(lines), case.program, truncated)]
    for profile in profiles:
        chunks = _document_chunks(case, len(lines), truncated) if profile == "v1" else whole
        for parts in (chunks,) if truncated or profile != "v1" else (chunks, whole):
            result = refine_document(case.text, parts, profile=profile, caps=case.caps)
            utf8 = refine_document(_utf8(case.text), parts, profile=profile, caps=case.caps)
            _require((utf8.after, *utf8[2:]) == (_utf8(result.after), *result[2:]), "the same of text and of its UTF-8")
            _require((result.text is None) == (result.outcome == "dropped"), "dropped: no text")
            _require((result.outcome == "kept") <= (result.text == case.text), "kept: the same text")
            if profile == "v1":
                _check_joined(result, case, lines, program, parts)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _check_joined(
    result: DocumentResult[str], case: Case, lines: list[str], program: Program, chunks: list[ChunkProgram]
) -> None:
    _require(sum(result.statuses.values()) == len(chunks), "a status for each chunk")
    if program.status == "malformed":
        _require(result.text == case.text, "malformed: the document is intact")
        return
    expected: list[str] = []
    position = 0
    for chunk in chunks[:2]:
        if chunk.first_line < position:
            continue
        expected += lines[position : chunk.first_line]
        position = chunk.first_line + chunk.line_count
        done = execute(program, lines[chunk.first_line : position], first_line=chunk.first_line, caps=case.caps)
        expected += done.lines
    text = "\n".join(expected + lines[position:])
    _require(result.text is None or result.text == text, "a document is its chunks one after the other")
    _require(result.words_out == len(text.split()), "words of the text that was checked")


def check_against_ast(case: Case) -> None:
    """The program language and `ast_programs` agree about the case, in everything both of them say."""
    lines = case.text.split("\n")
    for truncated in (False, True):
        for stage in STAGES:
            program = parse(case.program, stage, truncated=truncated, caps=case.caps)
            oracle = ast_programs.parse(case.program, stage, truncated=truncated, caps=case.caps)
            _same(program, oracle, ("status", "operations"))
            _require(_same_reason(program.reason, oracle.reason), "ast: reason")
            for profile in ("v1", "deletion_only"):
                options: dict[str, Any] = {"first_line": case.first_line, "profile": profile, "caps": case.caps}
                result = execute(program, lines, **options)
                expected = ast_programs.execute(oracle, lines, **options)
                _same(result, expected, ("lines", "dropped", "status", "removed", "replaced"))
                _same_outcomes(result.outcomes, expected.outcomes)
        chunks = _document_chunks(case, len(lines), truncated)
        for checks in (DocumentChecks(), CHECKS_OFF):
            document = refine_document(case.text, chunks, checks=checks, caps=case.caps)
            compare_documents(document, ast_programs.refine_document(case.text, chunks, checks=checks, caps=case.caps))


def compare_documents(result: DocumentResult[str], expected: ast_programs.Refined) -> None:
    """Raises `Violation` where a document's result is not the oracle's."""
    names = "text outcome reason statuses removed_lines replaced words_in words_out removed"
    _same(result, expected, names.split())
    _same_outcomes(result.operations, expected.operations)
    _require(len(result.chunks) == len(expected.chunks), "ast: chunks")
    for report, other in zip(result.chunks, expected.chunks, strict=True):
        _same(report, other, ("first_line", "line_count", "status"))
        _require(_same_reason(report.reason, other.reason), "ast: reason of a chunk")
        _same_outcomes(report.operations, other.operations)


def _same(result: object, expected: object, names: Sequence[str]) -> None:
    for name in names:
        _require(getattr(result, name) == getattr(expected, name), f"ast: {name}")


def _same_outcomes(outcomes: Sequence[Any], expected: Sequence[ast_programs.Done]) -> None:
    _require(len(outcomes) == len(expected), "ast: outcomes")
    for done, other in zip(outcomes, expected, strict=True):
        _same(done, other, ("op", "outcome", "reason", "affected"))


def _same_reason(reason: str | None, expected: str | None) -> bool:
    """Python's parser only says "invalid syntax", which gives the oracle no reason to name."""
    either = {"not a literal", "wrong argument type"}  # `normalize(1.5)` is both
    return expected is None or reason == expected or {reason, expected} == either


# --- time --------------------------------------------------------------------------------------------------------


def slowest_call(case: Case, repeats: int = 3) -> float:
    """Processor milliseconds of the slowest single parse with execution (or document) of the case; best of repeats."""
    lines = case.text.split("\n")

    def run(stage: Stage, truncated: bool, profile: str) -> None:
        program = parse(case.program, stage, truncated=truncated, caps=case.caps)
        execute(program, lines, first_line=case.first_line, profile=profile, caps=case.caps)

    def run_document(truncated: bool, profile: str) -> None:
        chunks = [ChunkProgram(0, len(lines), case.program, truncated)]
        refine_document(case.text, chunks, profile=profile, caps=case.caps)

    calls = [partial(run, stage, cut, profile) for stage in STAGES for cut in (False, True) for profile in PROFILES]
    calls += [partial(run_document, cut, profile) for cut in (False, True) for profile in PROFILES]
    return max(min(_milliseconds(call) for _ in range(repeats)) for call in calls)


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1_000


# --- cases -------------------------------------------------------------------------------------------------------

BUILT_IN = (
    "keep_chunk()",
    "untouch_doc()",
    "drop_doc()",
    "keep_doc()",
    "remove_lines(0, 1)",
    "remove_lines(start=0, end=3)\nremove_lines(start=7, end=7)",
    'normalize(source_str="Read more", target_str="")',
    'normalize("Home | About", "")\nremove_lines(2, 4)\nnormalize("tea", "coffee")',
    "```python\n# the menu\nremove_lines(line_start=0, line_end=2)\nkeep_chunk()\n```",
    "normalize('it\\'s', \"\\u00e9\\x41\\101\\N{BULLET}\"); remove_lines(1, 1)  # gone",
    "remove_lines(\n    0,\n    1,  # why\n)\r\nnormalize('a\\\nb')\r\n",
    'normalize("a", "aa")\n' * 8,
    "remove_lines(end=12, start=3)\nremove_lines(start=0, end=1",
)
TEXTS = (
    "Home | About\nA story about tea.\nRead more: http://a.b/c?d=e\n\nCopyright (c) tea, Inc.",
    "",
    "\n\n",
    "one line",
    "a\nb\nc\nd\ne\nf\ng\nh",
    "aaaa aaaa\naaaa",
    "cr\r\nlf\r\n\x85\u2028\u2029\v\f\x1c\nend\r",
    "\ud800 lone\n\udfff\0\nNUL\n\ufeff\u00a0 \u3000",
    "عربي ٣\n日本語 １\ne\u0301 \U0001f600\nﬁ ß İ",
    "it's \\ a \"quote\"\n'q' \\n \\\\\n# no; comment\n```",
    "\n".join(f"line {number} says (sat) on, http://a.b/?q={number}&r=2" for number in range(40)),
    "word " * 300 + "\n" + "x" * 400,
)
_WORDS = r"""
remove_lines normalize keep_chunk untouch_doc keep_doc drop_doc line_start line_end start end source_str target_str
remove_lines( normalize( keep_chunk() drop_doc() keep_doc() =0 =" all=True ( ) (( )) , ,, = == := ; ;; # [ ] { } * ** @
. ... -> + - ~ ! % lambda if None True f" r' b" u' rb' f' ' \' \" \ \\ \n \x4 \x41 \u00e9 \u12 \ud800 \udc00 \U0001F600
\U00110000 \N{BULLET} \N{ \N{x} \777 \8 \0 ''' `` ``` ```python ` 0 1 -1 -0 00 007 1.0 1e9 0x1f 1_0 0b1 99 3 12 _ é
9999999999999999999 ｒ ｅ （ ） ， ＝ ＂ ＇ “ ” ‘ ’ « » ′ ″ ٣ ３ ² Ⅷ а е"""
TOKENS = [*_WORDS.split(), '"', '""', '""' + '"', "```\n"]
_SPACES = " \t\n\r\f\v\0\x1a\x1b\x7f\x85\xa0\xad\u200b\u200e\u202e\u2028\u2029\u3000\ufeff\ufffd"
ODD = [*_SPACES, "\ud800", "\udbff", "\udc00", "\udfff", "\U0001f600"]
SEPARATORS = ("\n", "\n", "\n", ";", "; ", "\r\n", "\n\n", " ", "\n# why\n", " # x\n", ";;\n", "\f\n", "")
REMOVALS = ("{}, {}", "start={}, end={}", "line_start={}, line_end={}", "{}, end={}", "end={1}, start={0}")
REPLACEMENTS = ("{}", "{}, {}", "source_str={}, target_str={}", "{}, target_str={}", "target_str={1},source_str={0}")
# What stands before, what is repeated up to hundreds of thousands of times, what stands behind.
HOSTILE: tuple[tuple[Sequence[str], Sequence[str], Sequence[str]], ...] = (
    (["remove_lines("], ["(", "[", "{", "remove_lines(", "-", "*", "not ", "lambda:"], ["", "0, 1)"]),
    (["remove_lines(0, ", "remove_lines(-"], "0189٣", [")", ", 1)", ""]),
    (["remove_lines(0"], [" ", "#\n", "\t\n", "# ", ",", ", ", "\\\n"], ["", ")", "x", ", 1)"]),
    (["remove_lines(", "normalize(", "keep_chunk"], "a_é9 ", ["", "=", "(", "=0)"]),
    (["normalize('"], ["\\", "\\'", '\\"', "\\N{", "\\x", "''", "\\\n", "\\u00", *"aé\0"], ["", "'", "')", "', 'x')"]),
    (["keep_chunk()"], SEPARATORS, ["keep_chunk()", "keep_chunk", "#"]),
    (["", "keep_chunk()\n"], ["`", "```", "```\n", "``` ", "```py"], ["", "\nkeep_chunk()"]),
    (["#", "keep_chunk() #"], ["#", " ", "\r", "é"], ["\nkeep_chunk()", "\rkeep_chunk()", ""]),
    (["", "keep_chunk()"], ODD, ["keep_chunk()", ""]),
)
# One kind of character for another, everywhere.
SWAPS = [("'", '"'), ('"', "“"), (", ", ","), (",", ";"), ("\n", ";"), ("\n", "\r\n"), ("=", " = "), ("\n", "\n  ")]
SWAPS += [("(", " ("), (" ", "\u00a0"), ("0", "٠"), ("=", "＝")]
WRAPS = [("```\n", "\n```"), ("```python\n", "\n```\n"), ("# x\n", ""), (" ", " "), ("Sure:\n", ""), ("```\n", "")]
WRAPS += [(";", ";"), ("", " # x"), ("\ufeff", ""), ("(", ")"), ("```\n", "\n``` x")]


class Maker:
    """Cases from a source of randomness, for one batch."""

    def __init__(self, rng: random.Random, seeds: Sequence[Case]) -> None:
        self.random = rng.random
        self.seeds = seeds
        self.mutations: list[Callable[[str], str]] = [self.insert, self.insert, self.delete, self.double, self.cut]
        self.mutations += [self.substitute, self.splice, self.digits, self.swap, self.wrap]

    def below(self, n: int) -> int:
        """A number from 0 to n - 1; much faster than `randrange`, and as random as is needed here."""
        return int(self.random() * n)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.random() * len(items))]

    def case(self) -> Case:
        kind = self.random()
        seed = self.pick(self.seeds)
        program, text, first_line = seed.program, seed.text, seed.first_line
        if kind < 0.4:
            program = self.mutated(program)
        elif kind < 0.75:
            program = self.calls(text, 1 + self.below(6))
            if kind < 0.55:
                program = self.mutated(program)
        elif kind < 0.9:
            program = "".join([self.token() for _ in range(1 + self.below(24))])
        elif kind < 0.985:
            program = self.hostile(text)
        elif kind < 0.99995:
            program, text = self.hostile(text, 40), self.text()
        else:
            return self.huge(text)
        if self.random() < 0.1:
            text = self.text()
        if self.random() < 0.1:
            first_line = self.below(12)
        return Case(program, text, first_line, wide=self.random() < 0.02)

    def text(self) -> str:
        """A document of seeds' lines and odd characters."""
        lines = self.pick(TEXTS).split("\n") + self.pick(self.seeds).text.split("\n")
        picked = [self.pick(lines) for _ in range(1 + self.below(8))]
        if self.random() < 0.3:
            picked.append(self.insert(self.pick(picked)))
        return "\n".join(picked)

    def token(self) -> str:
        kind = self.random()
        return self.pick(TOKENS) if kind < 0.7 else self.pick(ODD) if kind < 0.85 else self.pick(SEPARATORS)

    def calls(self, text: str, count: int) -> str:
        separator = self.pick(SEPARATORS)
        return separator.join([self.call(text) for _ in range(count)])

    def call(self, text: str) -> str:
        kind = self.random()
        if kind < 0.05:
            return self.pick(BUILT_IN)
        if kind < 0.5:
            start, end = self.number(), self.number()
            form = self.pick(REMOVALS)
            return f"remove_lines({form.format(start, end)})"
        source, target = self.string(text), self.string(text) if self.random() < 0.5 else ""
        form = self.pick(REPLACEMENTS)
        return f"normalize({form.format(self.quoted(source), self.quoted(target))})"

    def number(self) -> int:
        kind = self.random()
        if kind < 0.97:
            return self.below(8) if kind < 0.8 else self.below(100) - 20
        return int((-1) ** self.below(2) * 10 ** self.below(60))

    def string(self, text: str) -> str:
        """Mostly a piece of the text."""
        kind = self.random()
        if kind < 0.7 and text:
            start = self.below(len(text))
            return text[start : start + 1 + self.below(12)]
        return "".join([self.token() for _ in range(self.below(4))])

    def quoted(self, value: str) -> str:
        quote = self.pick('""\'')
        if self.random() < 0.8:
            value = value.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\n", "\\n").replace("\r", "\\r")
        return quote + value + quote

    def hostile(self, text: str, size: int = 1) -> str:
        """What breaks parsers and executors: some 20 times `size` repetitions of something."""
        n = 1 + self.below(20 * size)
        kind = self.below(15)
        if kind < 10:
            before, repeated, after = self.pick(HOSTILE)
            return str(self.pick(before) + self.pick(repeated) * n + self.pick(after))
        if kind == 10:  # grows at every step until it is refused
            source = self.pick(text) if text else "a"
            return f"normalize({self.quoted(source)}, {self.quoted(source * 2)})\n" * (n % 270)
        if kind == 11:
            return f"normalize({self.quoted(self.token() * n)}, {self.quoted(self.token() * n)})"
        if kind == 12:
            return (self.call(text) + self.pick(SEPARATORS)) * (n % 300)
        if kind == 13:
            return self.calls(text, 3).replace("\n", "\r\n").replace(" ", self.pick(ODD))
        return "\n".join([f"remove_lines({line}, {line})" for line in range(n % 300)])

    def huge(self, text: str) -> Case:
        """About a megabyte, under caps that let it in or not."""
        program = self.hostile(text, 30_000)
        if self.random() < 0.5:
            program = (self.mutated(self.pick(self.seeds).program) + "\n") * 20_000
        return Case(program[:1_000_000], text, wide=self.random() < 0.5)

    def mutated(self, program: str) -> str:
        for _ in range(1 + self.below(3)):
            program = self.pick(self.mutations)(program)
        return program

    def insert(self, program: str) -> str:
        at = self.below(len(program) + 1)
        return program[:at] + self.token() + program[at:]

    def delete(self, program: str) -> str:
        at = self.below(len(program) + 1)
        return program[:at] + program[at + 1 + self.below(1 + self.below(8)) :]

    def double(self, program: str) -> str:
        at, length = self.below(len(program) + 1), 1 + self.below(1 + self.below(30))
        return program[: at + length] + program[at:]

    def substitute(self, program: str) -> str:
        at = self.below(len(program) + 1)
        return program[:at] + self.token() + program[at + 1 :]

    def cut(self, program: str) -> str:
        return program[: self.below(len(program) + 1)]

    def splice(self, program: str) -> str:
        other = self.pick(self.seeds).program
        return program[: self.below(len(program) + 1)] + other[self.below(len(other) + 1) :]

    def digits(self, program: str) -> str:
        return program.replace(self.pick("0123456789"), str(self.number()), 1)

    def swap(self, program: str) -> str:
        old, new = self.pick(SWAPS)
        return program.replace(old, new)

    def wrap(self, program: str) -> str:
        before, after = self.pick(WRAPS)
        return str(before + program + after)


# --- running -----------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What running cases showed. slow: the cases that took longest, with the milliseconds per kilobyte of all of
    `check_case`, which calls the language some twenty times."""

    programs: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    slow: list[tuple[float, Case]] = field(default_factory=list)
    failures: list[tuple[str, Case]] = field(default_factory=list)

    def note_time(self, spent: float, case: Case) -> None:
        """Remember a slow case; `Violation` if a single call is too slow, measured again to be sure."""
        if len(self.slow) < SLOW_CASES or spent > self.slow[-1][0]:
            self.slow = sorted([*self.slow, (spent, case)], key=_first, reverse=True)[:SLOW_CASES]
        if spent > MS_PER_KB:
            _require(slowest_call(case) <= MS_PER_KB * case.kilobytes, "too slow")

    def add(self, other: Tally) -> None:
        self.programs += other.programs
        self.counts += other.counts
        self.slow = sorted(self.slow + other.slow, key=_first, reverse=True)[:SLOW_CASES]
        self.failures += other.failures


def _first(pair: tuple[float, Case]) -> float:
    return pair[0]


def run_case(case: Case, tally: Tally, checks: Sequence[Callable[[Case], None]] = ()) -> None:
    """One case into the tally; whatever it raises is a failure."""
    signal.setitimer(signal.ITIMER_VIRTUAL, 2 + case.kilobytes * MS_PER_KB / 50)
    start = time.process_time()
    try:
        check_case(case, tally.counts)
        tally.note_time((time.process_time() - start) * 1_000 / case.kilobytes, case)
        for check in checks:
            check(case)
    except Exception as error:
        tally.failures.append((f"{type(error).__name__}: {error}", case))
    tally.programs += 1


def run_batch(seed: int, size: int, oracle: bool, batch: int) -> Tally:
    """Cases `batch * BATCH` and on of this seed, `size` of them at most `BATCH`."""
    signal.signal(signal.SIGVTALRM, _hang)
    maker = Maker(random.Random(f"{seed}/{batch}"), _seeds)
    tally = Tally()
    for _ in range(min(BATCH, size - batch * BATCH)):
        run_case(maker.case(), tally, [check_against_ast] if oracle else [])
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return tally


def _hang(*_: object) -> None:
    raise Hang("hang")


_seeds: Sequence[Case] = ()


def load_seeds(path: Path | None) -> None:
    """Seed cases for this process: those of the file, each cut to a few kB, and built-in ones, half and half."""
    global _seeds
    built_in = [Case(program, text) for program in BUILT_IN for text in TEXTS]
    requests = [json.loads(line) for line in path.read_text().splitlines()] if path else []
    read = [
        Case(request["program"][:2_000], request.get("text", "")[:1_500], request.get("first_line", 0))
        for request in requests
    ]
    _seeds = read + built_in * max(1, len(read) // len(built_in))


def minimise(case: Case, fails: Callable[[Case], bool], tries: int = 3_000) -> Case:
    """The case with whatever can go from program and text gone, as long as it fails."""
    for name in ("program", "text"):
        size = len(getattr(case, name)) // 2
        while size and tries > 0:
            at = 0
            while at < len(getattr(case, name)) and tries > 0:
                value = getattr(case, name)
                smaller = replace(case, **{name: value[:at] + value[at + size :]})
                tries -= 1
                if fails(smaller):
                    case = smaller
                else:
                    at += size
            size //= 2
    return case


def fails_as(reason: str, oracle: bool) -> Callable[[Case], bool]:
    def fails(case: Case) -> bool:
        tally = Tally()
        run_case(case, tally, [check_against_ast] if oracle else [])
        return any(found == reason for found, _ in tally.failures)

    return fails


def save_case(folder: Path, case: Case, why: str) -> Path:
    """The case as a JSON file named by its content; pure ASCII, so that lone surrogates survive."""
    content = json.dumps({"why": why, **asdict(case)}, indent=1) + "\n"
    name = hashlib.blake2b(json.dumps(asdict(case)).encode(), digest_size=6).hexdigest()
    path = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def load_case(path: Path) -> Case:
    """A case that `save_case` wrote."""
    fields = json.loads(path.read_text())
    return Case(fields["program"], fields["text"], fields["first_line"], fields["wide"])


def run(options: argparse.Namespace) -> Tally:
    """All batches, spread over processes, with progress on standard error."""
    batches = -(-options.programs // BATCH)
    work = partial(run_batch, options.seed, options.programs, options.oracle)
    tally = Tally()
    started = shown = time.monotonic()
    with ProcessPoolExecutor(options.processes, initializer=load_seeds, initargs=(options.seeds,)) as pool:
        for done in pool.map(work, range(batches)):
            tally.add(done)
            now = time.monotonic()
            if now - shown > 10:
                shown = now
                rate = tally.programs / (now - started)
                left = (options.programs - tally.programs) / rate
                print(
                    f"{tally.programs:,} programs, {rate:,.0f}/s, {left:,.0f} s left, {len(tally.failures)} failures",
                    file=sys.stderr,
                )
    return tally


def report(tally: Tally, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """The JSON object that is printed; failing cases, one for each reason, are made smaller and written down."""
    signal.signal(signal.SIGVTALRM, _hang)
    first = dict(reversed(tally.failures))
    small = {why: minimise(case, fails_as(why, options.oracle)) for why, case in first.items()}
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    slowest, program = max((slowest_call(case) / case.kilobytes, case.program) for _, case in tally.slow)
    return {
        "programs": tally.programs,
        "seed": options.seed,
        "processes": options.processes,
        "seconds": round(seconds, 1),
        "programs_per_second": round(tally.programs / seconds),
        "slowest_ms_per_kb": round(slowest, 3),
        "slowest_program": program[:100],
        "counts": dict(sorted(tally.counts.items())),
        "failures": len(tally.failures),
        "found": [{"why": why, "file": str(save_case(options.found, case, why))} for why, case in small.items()],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--programs", type=int, default=100_000, help="how many (underscores allowed)")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seeds", type=Path, help="JSON lines with `program` and `text`, as `prox_hpc.programs execute` reads them"
    )
    parser.add_argument("--found", type=Path, default=FOUND, help="folder for failing cases (default: %(default)s)")
    parser.add_argument("--oracle", action="store_true", help="also compare with tools/ast_programs.py (slow)")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    tally = run(options)
    print(json.dumps(report(tally, options, time.monotonic() - started), indent=1))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
