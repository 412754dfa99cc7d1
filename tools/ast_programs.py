"""The program language a second time, plainly, on Python's own `ast`: the oracle of a test and a benchmark's baseline.

What an engineer writes who has `ast.parse` at hand: the whole program is given to Python's parser, and a whitelist of
nodes says which calls are operations. Nothing is evaluated. Python reads more than the language admits (implicit
concatenation, prefixes, `0x10`, extra parentheses), which the literals' source text gives away, and less (blanks before
a call, `;;`, fences, cut-off calls, long integers), for which the text is first split into calls. The rules are those
of the design document's section on the program language; `prox_hpc.programs` is used for its operations and caps only.
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prox_hpc.programs.document import DEFAULT_CHECKS, ChunkProgram, DocumentChecks
from prox_hpc.programs.language import (
    DEFAULT_CAPS,
    MAX_INTEGER_DIGITS,
    Caps,
    DropDoc,
    KeepChunk,
    KeepDoc,
    Normalize,
    Operation,
    RemoveLines,
)

# Python warns of `"\d"`, `"\777"` and `1if` while it parses them.
warnings.filterwarnings("ignore", message="invalid (octal |)escape|invalid [a-z]+ literal")

BLANKS = " \t\r\f\n"
START, END = ("line_start", "start"), ("line_end", "end")
SOURCE, TARGET = ("source_str",), ("target_str",)
# Name of the call: its operation, its parameters' keywords, the type of its arguments, the default of the last one.
SIGNATURES: dict[str, dict[str, tuple[type[Operation], tuple[tuple[str, ...], ...], type, str | None]]] = {
    "doc": {
        "keep_doc": (KeepDoc, (), str, None),
        "untouch_doc": (KeepDoc, (), str, None),
        "drop_doc": (DropDoc, (), str, None),
    },
    "chunk": {
        "remove_lines": (RemoveLines, (START, END), int, None),
        "normalize": (Normalize, (SOURCE, TARGET), str, ""),
        "keep_chunk": (KeepChunk, (), str, None),
        "untouch_doc": (KeepChunk, (), str, None),
    },
}

_STRING = r"""'(?:[^'\\\r\n]|\\(?:\r\n|[\s\S]))*'|"(?:[^"\\\r\n]|\\(?:\r\n|[\s\S]))*\""""
_OPEN_STRING = re.compile(r"""(?:'(?:[^'\\\r\n]|\\(?:\r\n|[\s\S]))*|"(?:[^"\\\r\n]|\\(?:\r\n|[\s\S]))*)\\?\Z""")
_TOKEN = re.compile(rf"(?P<string>{_STRING})|(?P<comment>#[^\n]*)|(?P<integer>(?<![\w.])[0-9]+(?![\w.]))|[\s\S]")
_FENCE = re.compile(r"(?:[ \t\r\f\n;]|#[^\n]*(?:\n|\Z))*```[A-Za-z0-9_+.\-]*[ \t\r]*(?:\n|\Z)")
_PLAIN_STRING = re.compile(rb"""'(?!'')(?:[^'\\]|\\[\s\S])*'|"(?!"")(?:[^"\\]|\\[\s\S])*\"""")
_PLAIN_INTEGER = re.compile(rb"-?[0-9]+")
_WORD = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)
_SURROGATE = re.compile(r"(?<!\\)(\\*)([\ud800-\udfff])")


@dataclass(frozen=True)
class Parsed:
    """A program: its operations, its status before execution, why it is malformed or what was discarded."""

    operations: tuple[Operation, ...]
    status: str
    reason: str | None


@dataclass(frozen=True)
class Done:
    """What became of one operation; affected: lines removed or occurrences replaced."""

    op: Operation
    outcome: str
    reason: str | None = None
    affected: int = 0


@dataclass(frozen=True)
class Chunk:
    """A chunk after its program. removed: maximal inclusive spans of document line numbers."""

    lines: tuple[str, ...]
    dropped: bool
    status: str
    outcomes: tuple[Done, ...]
    removed: tuple[tuple[int, int], ...]
    replaced: int


@dataclass(frozen=True)
class Report:
    """A chunk's place in the document and what became of it."""

    first_line: int
    line_count: int
    status: str
    reason: str | None
    operations: tuple[Done, ...]


@dataclass(frozen=True)
class Refined:
    """A document after its programs; the fields mean what they mean in `prox_hpc.programs.DocumentResult`."""

    text: str | None
    outcome: str
    reason: str | None
    statuses: dict[str, int]
    operations: tuple[Done, ...]
    removed_lines: int
    replaced: int
    words_in: int
    words_out: int
    removed: tuple[tuple[int, int], ...]
    chunks: tuple[Report, ...]


class Malformed(Exception):
    """The text is no program; the reason is None where Python's parser only says "invalid syntax"."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(reason)
        self.reason = reason


# --- reading -----------------------------------------------------------------------------------------------------


def parse(text: str, stage: str, *, truncated: bool = False, caps: Caps = DEFAULT_CAPS) -> Parsed:
    """Program text of one stage; never raises."""
    try:
        operations, reason = _parse(text, stage, truncated, caps)
        kinds = {type(operation) for operation in operations}
        if {KeepDoc, DropDoc} <= kinds:
            raise Malformed("keep and drop together")
    except Malformed as error:
        return Parsed((), "malformed", error.reason)
    return Parsed(tuple(operations), "truncated" if truncated else "ok", reason)


def _parse(text: str, stage: str, truncated: bool, caps: Caps) -> tuple[list[Operation], str | None]:
    if len(text.encode("utf-8", "surrogatepass")) > caps.program_bytes:
        raise Malformed("too many bytes")
    if "\0" in text:
        raise Malformed("NUL byte")
    if "\r" not in text:  # for Python a line break wherever it stands
        try:
            operations = _read_python(text.strip(BLANKS), stage, caps)
        except Malformed:
            pass
        else:
            if 0 < len(operations) <= caps.operations:
                return operations, None
    return _read_pieces(text, stage, truncated, caps)


def _read_python(source: str, stage: str, caps: Caps) -> list[Operation]:
    """The operations of text that is Python, nothing but calls with plain literal arguments."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # ValueError: a lone surrogate
        raise Malformed(None) from None
    lines = source.encode().split(b"\n")
    literals: list[bytes] = []
    operations = [_operation(statement, lines, literals, stage, caps) for statement in statements]
    # Parentheses around an argument or a call, and backslashes between lines, leave no trace in the tree.
    spare = source.count("(") - len(statements) - sum(literal.count(b"(") for literal in literals)
    if spare or source.count("\\") != sum(literal.count(b"\\") for literal in literals):
        raise Malformed(None)
    return operations


def _operation(statement: ast.stmt, lines: list[bytes], literals: list[bytes], stage: str, caps: Caps) -> Operation:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        raise Malformed(None)
    call = statement.value
    if not isinstance(call.func, ast.Name):
        raise Malformed(None)
    if (statement.lineno, statement.col_offset) != (call.lineno, call.col_offset):  # (call())
        raise Malformed(None)
    name = call.func.id
    if not name.isascii() or _source(lines, call.func) != name.encode():  # Python folds full-width letters to ASCII
        raise Malformed(None)
    if name not in SIGNATURES[stage]:
        known = any(name in names for names in SIGNATURES.values())
        raise Malformed("call of the other stage" if known else "unknown call")
    make, parameters, kind, default = SIGNATURES[stage][name]
    values: dict[int, int | str] = {}
    for place, argument in enumerate(call.args):
        if place >= len(parameters):
            raise Malformed("too many arguments")
        values[place] = _value(argument, kind, lines, literals, caps)
    for keyword in call.keywords:
        place = _place(keyword, parameters, lines)
        if place in values:
            raise Malformed("repeated argument")
        values[place] = _value(keyword.value, kind, lines, literals, caps)
    if default is not None:
        values.setdefault(len(parameters) - 1, default)
    if len(values) < len(parameters):
        raise Malformed("missing argument")
    return make(*(values[place] for place in range(len(parameters))))  # type: ignore[arg-type]


def _place(keyword: ast.keyword, parameters: tuple[tuple[str, ...], ...], lines: list[bytes]) -> int:
    name = keyword.arg
    if name is None or not name.isascii() or not _source(lines, keyword).startswith(name.encode()):
        raise Malformed(None)  # `**x`, or full-width letters that Python folds to ASCII
    for place, keywords in enumerate(parameters):
        if name in keywords:
            return place
    raise Malformed("unknown keyword")


def _value(node: ast.expr, kind: type, lines: list[bytes], literals: list[bytes], caps: Caps) -> int | str:
    """The value of a plain literal of this type; its source text is added to `literals`."""
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    constant = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    value = constant.value if isinstance(constant, ast.Constant) else None
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise Malformed("not a literal")
    source = _source(lines, node)
    if not (_PLAIN_STRING if isinstance(value, str) else _PLAIN_INTEGER).fullmatch(source):
        raise Malformed("not a literal")
    if type(value) is not kind:
        raise Malformed("wrong argument type")
    literals.append(source)
    if isinstance(value, str):
        return value
    value = value if value < 10 ** min(caps.integer_digits, MAX_INTEGER_DIGITS) else _beyond(caps)
    return -value if negative else value


def _beyond(caps: Caps) -> int:
    """What stands for any integer of more digits than the cap."""
    return int(10 ** max(18, min(caps.integer_digits, MAX_INTEGER_DIGITS)))


def _source(lines: list[bytes], node: ast.expr | ast.keyword) -> bytes:
    """A node's source text; Python counts its columns in UTF-8 bytes."""
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    if first == last:
        return lines[first][node.col_offset : node.end_col_offset]
    inner = lines[first + 1 : last]
    return b"\n".join([lines[first][node.col_offset :], *inner, lines[last][: node.end_col_offset]])


# --- what Python does not read -----------------------------------------------------------------------------------


def _read_pieces(text: str, stage: str, truncated: bool, caps: Caps) -> tuple[list[Operation], str | None]:
    """Call by call, each one by Python; and the reason if the last one was cut off."""
    fence = _FENCE.match(text)
    pieces = list(_split(_python_surrogates(text[fence.end() if fence else 0 :]), caps))
    operations: list[Operation] = []
    for number, (piece, state) in enumerate(pieces):
        cut = truncated and state != "whole"
        if fence and (piece.startswith("```") or (cut and state == "end" and piece in ("`", "``"))):
            if piece.strip(BLANKS) not in ("`", "``", "```") or number < len(pieces) - 1:
                raise Malformed("text after the code fence")
            break
        if len(operations) >= caps.operations:
            raise Malformed("too many operations")
        try:
            if state == "open":
                raise Malformed(None)
            operations += _read_python(piece.strip(BLANKS), stage, caps)
        except Malformed:
            if cut and _can_go_on(piece, stage, caps):
                return operations, "last call cut off"
            raise
    else:
        if fence and not truncated:
            raise Malformed("code fence not closed")
    if not operations:
        raise Malformed("no call")
    return operations, None


def _split(text: str, caps: Caps) -> Iterator[tuple[str, str]]:
    """The text between separators, blank pieces and comments left out, integers in a form that Python takes.

    With each its state: "whole" (a separator follows), "end" (the text ends here) or "open" (it ends within brackets,
    or within a string, which is then given as an empty one).
    """
    piece: list[str] = []
    depth = position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        assert token is not None  # any character is a token
        found, position = token[0], token.end()
        if token["string"]:
            piece.append(found.replace("\\\r\n", "\\\n").replace("\\\r", "\\\n"))
        elif token["integer"]:
            piece.append(str(_clamped(found, caps)))
        elif found == "\\":  # joins lines for Python
            raise Malformed(None)
        elif found in "'\"":
            if not _OPEN_STRING.match(text, token.start()):
                raise Malformed(None)
            yield "".join(piece).lstrip(BLANKS) + "''", "open"
            return
        elif not depth and (found in "\n;" or token["comment"]):
            if "".join(piece).strip(BLANKS):
                yield "".join(piece).strip(BLANKS), "whole"
            piece = []
        elif found == "\r" or token["comment"]:
            piece.append(" ")
        else:
            depth += (found in "([{") - (found in ")]}")
            piece.append(found)
    if "".join(piece).strip(BLANKS):
        yield "".join(piece).lstrip(BLANKS), "open" if depth > 0 else "end"


def _clamped(digits: str, caps: Caps) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= min(caps.integer_digits, MAX_INTEGER_DIGITS) else _beyond(caps)


def _python_surrogates(text: str) -> str:
    r"""Lone surrogates, which Python refuses in source text, as the escapes `\ud800` to `\udfff`.

    Behind an odd number of backslashes one stands for itself, and so does the last backslash.
    """
    return _SURROGATE.sub(lambda m: f"{m[1]}{chr(92) if len(m[1]) % 2 else ''}\\u{ord(m[2]):04x}", text)


def _can_go_on(piece: str, stage: str, caps: Caps) -> bool:
    """Whether some continuation makes a call of the piece: found by trying those that matter."""
    words = [*SIGNATURES[stage], *START, *END, *SOURCE, *TARGET]
    tail = _WORD.search(piece)
    rests = [word[len(tail[0]) :] for word in words if word.startswith(tail[0])] if tail else []
    return any(_is_call(piece + rest + ending, stage, caps) for rest in ["", *rests] for ending in _ENDINGS)


# Whatever may follow a name, a keyword, a minus sign, a value, an equal sign or a comma, up to the end of the call.
_ENDINGS = [
    here + comma + arguments + ")"
    for here in ("", "(", "0", "'x'", "=0", "='x'")
    for comma in ("", ",")
    for arguments in ("", "0", "'x'", "start=0", "end=0", "source_str='x'", "0,0")
]


def _is_call(source: str, stage: str, caps: Caps) -> bool:
    try:
        return len(_read_python(source, stage, caps)) == 1
    except Malformed:
        return False


# --- executing ---------------------------------------------------------------------------------------------------


def execute(
    program: Parsed,
    lines: Sequence[str],
    *,
    first_line: int = 0,
    profile: str = "v1",
    caps: Caps = DEFAULT_CAPS,
) -> Chunk:
    """Apply a program to lines `first_line`, `first_line + 1`, ... of the document; profile v1 or deletion_only."""
    outcomes: list[Done] = []
    gone: set[int] = set()
    replaced = 0
    text = "\n".join(lines)
    most = int(len(text) * (1 + caps.growth_ratio)) + caps.growth_chars
    for operation in program.operations:
        if isinstance(operation, DropDoc):
            return Chunk((), True, program.status, tuple(Done(op, "applied") for op in program.operations), (), 0)
        if isinstance(operation, RemoveLines):
            done = _removal(operation, first_line, len(lines), caps)
            gone.update(range(operation.line_start, operation.line_end + 1) if done.outcome == "applied" else ())
        elif isinstance(operation, Normalize):
            done = _replacement(operation, text, most, profile, caps)
            if done.outcome == "applied":
                text = text.replace(operation.source_str, operation.target_str)
                replaced += done.affected
        else:
            done = Done(operation, "no_change")
        outcomes.append(done)
    # A chunk of no lines joins to the same text as one of an empty line.
    kept = [line for number, line in enumerate(text.split("\n") if lines else [], first_line) if number not in gone]
    refused = any(done.outcome == "refused" for done in outcomes)
    status = "partial" if refused and program.status == "ok" else program.status
    return Chunk(tuple(kept), False, status, tuple(outcomes), _spans(gone), replaced)


def _removal(operation: RemoveLines, first_line: int, line_count: int, caps: Caps) -> Done:
    if max(abs(operation.line_start), abs(operation.line_end)) >= _beyond(caps):
        return Done(operation, "refused", "integer too long")
    if operation.line_start > operation.line_end:
        return Done(operation, "refused", "start after end")
    if operation.line_start < first_line or operation.line_end >= first_line + line_count:
        return Done(operation, "refused", "line outside the chunk")
    return Done(operation, "applied", affected=operation.line_end - operation.line_start + 1)


def _replacement(operation: Normalize, text: str, most: int, profile: str, caps: Caps) -> Done:
    """Judge a normalisation of the chunk's text as the operations before it left it."""
    source, target = operation.source_str, operation.target_str
    reason = None
    if profile == "deletion_only":
        reason = "not in this profile"
    elif max(len(source), len(target)) > caps.string_chars:
        reason = "string too long"
    elif not source.strip():
        reason = "blank source"
    elif "\n" in source:
        reason = "source of several lines"
    elif "\n" in target or "\r" in target:
        reason = "line break in target"
    elif "\0" in target:
        reason = "NUL in target"
    elif _SURROGATE.search(source + target):
        reason = "lone surrogate"
    elif source not in text:
        reason = "source not found"
    if reason is not None:
        return Done(operation, "refused", reason)
    if source == target:
        return Done(operation, "no_change", "source equals target")
    count = text.count(source)
    if len(text) + count * (len(target) - len(source)) > most:
        return Done(operation, "refused", "growth beyond the cap")
    return Done(operation, "applied", affected=count)


def _spans(numbers: set[int]) -> tuple[tuple[int, int], ...]:
    """Numbers as maximal inclusive runs: in a run, number minus place is the same."""
    runs = itertools.groupby(enumerate(sorted(numbers)), key=lambda item: item[1] - item[0])
    members = [[number for _, number in run] for _, run in runs]
    return tuple((run[0], run[-1]) for run in members)


# --- documents ---------------------------------------------------------------------------------------------------


def refine_document(
    text: str,
    chunk_programs: Sequence[ChunkProgram],
    *,
    drop: bool = False,
    profile: str = "v1",
    checks: DocumentChecks = DEFAULT_CHECKS,
    caps: Caps = DEFAULT_CAPS,
) -> Refined:
    """A document's chunk programs executed, joined and checked."""
    words_in = len(text.split())
    if drop:
        return Refined(None, "dropped", "doc program", {}, (), 0, 0, words_in, 0, (), ())
    lines = text.split("\n")
    kept: list[str] = []
    reports: list[Report] = []
    gone: set[int] = set()
    position = replaced = 0
    for chunk in chunk_programs:
        first, stop = chunk.first_line, chunk.first_line + chunk.line_count
        if not position <= first <= stop <= len(lines):
            reports.append(Report(first, chunk.line_count, "misplaced", None, ()))
            continue
        kept += lines[position:first]
        position = stop
        if chunk.oversized or chunk.program_text is None:
            kept += lines[first:stop]
            status = "oversized" if chunk.oversized else "no_program"
            reports.append(Report(first, chunk.line_count, status, None, ()))
            continue
        program = parse(chunk.program_text, "chunk", truncated=chunk.truncated, caps=caps)
        result = execute(program, lines[first:stop], first_line=first, profile=profile, caps=caps)
        kept += result.lines
        replaced += result.replaced
        gone.update(number for start, end in result.removed for number in range(start, end + 1))
        reports.append(Report(first, chunk.line_count, result.status, program.reason, result.outcomes))
    kept += lines[position:]
    refined = "\n".join(kept)
    words_out = len(refined.split())
    reason = _check(words_in, words_out, checks) if refined != text else None
    return Refined(
        text=refined if reason is None else None,
        outcome="dropped" if reason is not None else "kept" if refined == text else "edited",
        reason=reason,
        statuses=dict(Counter(report.status for report in reports)),
        operations=tuple(done for report in reports for done in report.operations),
        removed_lines=len(gone),
        replaced=replaced,
        words_in=words_in,
        words_out=words_out,
        removed=_spans(gone),
        chunks=tuple(reports),
    )


def _check(words_in: int, words_out: int, checks: DocumentChecks) -> str | None:
    # In floating point 1 - 0.05 is less than 0.95: the tolerance makes 95% of the words 95%.
    if words_in and (words_in - words_out) / words_in >= checks.max_removed - 1e-12:
        return "removed too much"
    return "too few words" if words_out < checks.min_words else None
