r"""Grammars that keep a refiner's decoding within the language, as EBNF that xgrammar (SGLang, vLLM) compiles.

They are generated from the same table of calls the parser uses, and admit only canonical text as `render` writes it:
one call a line, positional arguments, double quotes. All repetition is bounded, so that a looping refiner is stopped by
the grammar, and that no program is over the parser's caps. Everything a grammar admits parses with status `ok`, or
`partial` where only execution can tell (a line range that runs backwards, a source that does not occur).
"""

from __future__ import annotations

from typing import Final

from prox_hpc.programs.language import CALLS, DEFAULT_CAPS, PLAIN_STRING_CLASS, Call, Parameter, Stage

MAX_OPERATIONS: Final = 64
"""Calls in one program; a 1,500-token chunk with more separate edits is better left alone."""

MAX_STRING_CHARS: Final = 200
"""Characters of one string argument: longer strings are whole lines, for which there is `remove_lines`."""

_MAX_DIGITS: Final = 7
_CHAR_BYTES: Final = 4
"""The most one character of a string can take in program text: as UTF-8, or as an escape (`\\x1f`)."""

# Just what `quote` writes: a quote, a backslash, a tab, a carriage return, and the other control characters by number.
# Not `\n`: a source or target of several lines is always refused.
_ESCAPE: Final = r'"\\" ["\\tr] | "\\x0" [0-8bcef] | "\\x1" [0-9a-f] | "\\x7f"'


def doc_grammar() -> str:
    """The doc stage: exactly one of `keep_doc()` and `drop_doc()` (together they would be malformed)."""
    return f"root ::= {_alternatives(_calls('doc'))}\n"


def chunk_grammar(
    first_line: int | None = None,
    line_count: int | None = None,
    max_operations: int = MAX_OPERATIONS,
    max_string_chars: int | None = MAX_STRING_CHARS,
) -> str:
    """The chunk stage: `keep_chunk()`, or one to `max_operations` edits, each on its own line.

    first_line, line_count: if both are given, only these lines can be named (`line_count` of at least 1); otherwise any
        number of up to seven digits.
    max_operations: fewer if as many of the longest edits would be over the cap on a program's bytes.
    max_string_chars: characters of a source or target string. None: any number, so that only the limit on new tokens
        ends a string that loops; the caller sees to it that this limit keeps programs under the caps. xgrammar 0.2.7
        with 8,000 tokens takes 1 us for each token inside such a string, 4 ms with a bound of 128, 100 ms with 200.
    """
    no_change = [call for call in _calls("chunk") if not call.parameters]
    edits = [call for call in _calls("chunk") if call.parameters]
    more = min(max_operations, DEFAULT_CAPS.operations, _most_edits(edits, max_string_chars)) - 1
    rules = [
        f"root ::= {_alternatives(no_change)} | edit" + (f' ("\\n" edit){{0,{more}}}' if more > 0 else ""),
        f"edit ::= {' | '.join(call.name for call in edits)}",
        *(_call_rule(call, max_string_chars) for call in edits),
        f"line ::= {_line_numbers(first_line, line_count)}",
        f"char ::= {PLAIN_STRING_CLASS} | {_ESCAPE}",
    ]
    return "\n".join(rules) + "\n"


def _calls(stage: Stage) -> list[Call]:
    return [call for call in CALLS[stage] if not call.alias]


def _alternatives(calls: list[Call]) -> str:
    """Calls without arguments, as literals."""
    return " | ".join(f'"{call.name}()"' for call in calls)


def _most_edits(edits: list[Call], max_string_chars: int | None) -> int:
    """How many of the longest edits make a program that is not over the cap on its bytes."""
    if max_string_chars is None:
        return DEFAULT_CAPS.operations
    most_chars = min(max_string_chars, DEFAULT_CAPS.string_chars)
    argument = {"line": _MAX_DIGITS, "string": most_chars * _CHAR_BYTES + len('""')}
    longest = max(
        len(call.name) + len("()\n") + sum(argument[parameter.kind] + len(", ") for parameter in call.parameters)
        for call in edits
    )
    return max(1, DEFAULT_CAPS.program_bytes // longest)


def _call_rule(call: Call, max_string_chars: int | None) -> str:
    arguments = "".join(
        _argument(parameter, place, max_string_chars) for place, parameter in enumerate(call.parameters)
    )
    return f'{call.name} ::= "{call.name}("{arguments} ")"'


def _argument(parameter: Parameter, place: int, max_string_chars: int | None) -> str:
    separator = ' ", "' if place else ""
    if parameter.kind == "line":
        return f"{separator} line"
    some = "+" if max_string_chars is None else f"{{1,{min(max_string_chars, DEFAULT_CAPS.string_chars)}}}"
    # The default (the empty string) is left out rather than written, so that there is one way to say it.
    argument = f'{separator} "\\"" char{some} "\\""'
    return argument if parameter.default is None else f" ({argument.strip()})?"


def _line_numbers(first_line: int | None, line_count: int | None) -> str:
    if first_line is None or line_count is None:
        return f'"0" | [1-9] [0-9]{{0,{_MAX_DIGITS - 1}}}'
    first = max(0, first_line)
    return " | ".join(_number_range(first, first + max(1, line_count) - 1))


def _number_range(low: int, high: int) -> list[str]:
    """Alternatives of digits that together match the decimal numbers from `low` to `high`, without leading zeros.

    128 to 345 gives 12[8-9], 1[3-9][0-9], 2[0-9][0-9] and so on: a few alternatives a digit, however wide the range.
    """
    alternatives: list[str] = []
    while low <= high:
        span = 1  # the widest power of ten that starts at `low` and stays in the range
        while low and low % (span * 10) == 0 and low + span * 10 - 1 <= high:
            span *= 10
        digit = low // span % 10
        blocks = min(10 - digit, (high - low + 1) // span)  # numbers that differ in this digit and the free ones only
        alternatives.append(_block(low // span // 10, digit, digit + blocks - 1, len(str(span)) - 1))
        low += blocks * span
    return alternatives


def _block(prefix: int, first_digit: int, last_digit: int, free_digits: int) -> str:
    parts = [f'"{prefix}"'] if prefix else []
    parts.append(f'"{first_digit}"' if first_digit == last_digit else f"[{first_digit}-{last_digit}]")
    if free_digits:
        parts.append("[0-9]" if free_digits == 1 else f"[0-9]{{{free_digits},{free_digits}}}")
    return " ".join(parts)
