r"""Grammars that keep a refiner's decoding within the language, as EBNF that xgrammar (SGLang, vLLM) compiles.

They are generated from the same table of calls the parser uses, and admit only canonical text as `render` writes it:
one call a line, positional arguments, double quotes. All repetition is bounded, so a looping refiner is stopped by the
grammar. Everything a grammar admits parses with status `ok`, or `partial` where only execution can tell (a line range
that runs backwards, a source that does not occur).
"""

from __future__ import annotations

from typing import Final

from prox_hpc.programs.language import CALLS, DEFAULT_CAPS, PLAIN_STRING_CLASS, Call, Parameter, Stage

MAX_OPERATIONS: Final = 64
"""Calls in one program; a 1,500-token chunk with more separate edits is better left alone."""

MAX_STRING_CHARS: Final = 200
"""Characters of one string argument: longer strings are whole lines, for which there is `remove_lines`."""

_MAX_DIGITS: Final = 7
# A tab, a quote, a backslash, a carriage return and the other control characters that `quote` escapes. Not `\n`: a
# source or target of several lines is always refused.
_ESCAPE: Final = r'"\\" ["\\tr] | "\\x" [01] [0-9a-f] | "\\x7f"'


def doc_grammar() -> str:
    """The doc stage: exactly one of `keep_doc()` and `drop_doc()` (together they would be malformed)."""
    return f"root ::= {_alternatives(_calls('doc'))}\n"


def chunk_grammar(
    first_line: int | None = None,
    line_count: int | None = None,
    max_operations: int = MAX_OPERATIONS,
    max_string_chars: int = MAX_STRING_CHARS,
) -> str:
    """The chunk stage: `keep_chunk()`, or one to `max_operations` edits, each on its own line.

    first_line, line_count: if both are given, only these lines can be named (`line_count` of at least 1); otherwise any
    number of up to seven digits. max_string_chars: characters of a source or target string.
    """
    no_change = [call for call in _calls("chunk") if not call.parameters]
    edits = [call for call in _calls("chunk") if call.parameters]
    more = min(max_operations, DEFAULT_CAPS.operations) - 1
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


def _call_rule(call: Call, max_string_chars: int) -> str:
    arguments = "".join(
        _argument(parameter, place, max_string_chars) for place, parameter in enumerate(call.parameters)
    )
    return f'{call.name} ::= "{call.name}("{arguments} ")"'


def _argument(parameter: Parameter, place: int, max_string_chars: int) -> str:
    separator = ' ", "' if place else ""
    if parameter.kind == "line":
        return f"{separator} line"
    most = min(max_string_chars, DEFAULT_CAPS.string_chars)
    # The default (the empty string) is left out rather than written, so that there is one way to say it.
    argument = f'{separator} "\\"" char{{1,{most}}} "\\""'
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
