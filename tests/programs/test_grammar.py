"""The grammars, compiled and walked by xgrammar itself: they admit canonical programs, and only what parses."""

import json
import random
import re

import pytest
import xgrammar
from hypothesis import Phase, find, given
from hypothesis import settings as Settings
from hypothesis import strategies as st

from prox_hpc.programs import (
    DEFAULT_CAPS,
    Normalize,
    RemoveLines,
    chunk_grammar,
    clip,
    doc_grammar,
    execute,
    parse,
    program_from_keep,
    render,
    split_chunks,
)

END = 256
VOCABULARY = xgrammar.TokenizerInfo([bytes([byte]) for byte in range(256)] + ["</s>"], stop_token_ids=[END])
COMPILER = xgrammar.GrammarCompiler(VOCABULARY)
# Bytes a random walk prefers, so that it closes strings and calls and does not babble to the bound.
CLOSING = frozenset(b'")\n')


def compile_grammar(text):
    return COMPILER.compile_grammar(xgrammar.Grammar.from_ebnf(text))


def admits(compiled, text):
    matcher = xgrammar.GrammarMatcher(compiled)
    return matcher.accept_string(text.encode()) and matcher.accept_token(END)


def allowed_tokens(matcher, mask):
    matcher.fill_next_token_bitmask(mask)
    words = [int(word) & 0xFFFFFFFF for word in mask[0]]
    return [token for token in range(END + 1) if words[token // 32] >> token % 32 & 1]


def sample(compiled, rng):
    """A random walk through the grammar, as constrained decoding with a byte-level tokenizer would take it."""
    matcher = xgrammar.GrammarMatcher(compiled)
    mask = xgrammar.allocate_token_bitmask(1, END + 1)
    out = bytearray()
    while True:
        tokens = allowed_tokens(matcher, mask)
        closing = [token for token in tokens if token in CLOSING or token == END]
        token = rng.choice(closing if closing and rng.random() < 0.3 else tokens)
        assert matcher.accept_token(token)
        if token == END:
            return out.decode("utf-8", "replace")
        out.append(token)


@pytest.mark.parametrize(
    "grammar",
    [
        chunk_grammar(),
        chunk_grammar(128, 218),
        chunk_grammar(0, 1),
        chunk_grammar(max_operations=2, max_string_chars=9),
    ],
)
def test_everything_a_chunk_grammar_admits_parses(grammar):
    compiled = compile_grammar(grammar)
    rng = random.Random(7)
    lines = [f"line {number}" for number in range(400)]
    for _ in range(60):
        text = sample(compiled, rng)
        program = parse(text, "chunk")
        assert program.status == "ok", (text, program.reason)
        assert execute(program, lines).status in ("ok", "partial")
        assert parse(render(program.operations), "chunk").operations == program.operations


_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|[a-z_]+|\{\d+,\d+\}|[()|?+])')


def as_pattern(grammar):
    """The grammar's text as a regular expression, which it is in another dress: no rule is recursive."""
    rules = dict(re.findall(r"^(\w+) ::= (.*)$", grammar, re.MULTILINE))

    def expand(body):
        tokens = _TOKEN.findall(body)
        assert re.sub(r"\s", "", "".join(tokens)) == re.sub(r"\s", "", body)  # all of it is understood
        return "".join(map(translate, tokens))

    def translate(token):
        if token[0] == '"':
            return "(?:" + re.escape(json.loads(token)) + ")"
        if token in rules:
            return f"(?:{expand(rules[token])})"
        return "(?:" if token == "(" else token

    return re.compile(expand(rules["root"]))


def programs(grammar):
    """Programs sampled from the grammar's own text."""
    return st.from_regex(as_pattern(grammar), fullmatch=True)


def run_on_chunk(text, first, count, caps=DEFAULT_CAPS):
    return execute(parse(text, "chunk", caps=caps), [f"line {n}" for n in range(count)], first_line=first, caps=caps)


RANGES = [(0, 1), (0, 12), (7, 1), (95, 30), (998, 5), (1234, 4321)]
# What only execution can tell; "line outside the chunk" is not among them.
REFUSED = {
    "start after end",
    "source not found",
    "blank source",
    "line break in target",
    "NUL in target",
    "growth beyond the cap",
}


@given(st.data())
def test_everything_sampled_from_a_grammar_is_ok_or_partial(data):
    first, count = data.draw(st.sampled_from(RANGES))
    most = data.draw(st.sampled_from([1, 3, None]))
    text = data.draw(programs(chunk_grammar(first, count, max_operations=4, max_string_chars=most)))
    result = run_on_chunk(text, first, count)
    assert result.status in ("ok", "partial"), (text, parse(text, "chunk").reason)
    assert {outcome.reason for outcome in result.outcomes if outcome.outcome == "refused"} <= REFUSED
    assert render(outcome.op for outcome in result.outcomes) == text


@given(programs(chunk_grammar(max_operations=3, max_string_chars=4)))
def test_without_a_range_a_line_may_be_outside_and_that_is_all(text):
    result = run_on_chunk(text, 3, 5)
    assert result.status in ("ok", "partial")
    assert {outcome.reason for outcome in result.outcomes if outcome.outcome == "refused"} <= {
        *REFUSED,
        "line outside the chunk",
    }


@given(programs(doc_grammar()))
def test_everything_sampled_from_the_doc_grammar_is_ok(text):
    assert parse(text, "doc").status == "ok"


# Of the grammar's text: what is replaced by what to admit a bare quote, a blank between calls, "\x", another name.
HOLES = [
    (r'[^"\\\x00', r"[^\x00"),
    (r'"\n" edit', '" " edit'),
    (r'["\\tr]', '["\\\\xtr]'),
    ('"remove_lines("', '"remove("'),
]


@pytest.mark.parametrize(("right", "wrong"), HOLES)
def test_sampling_finds_what_a_wrong_grammar_admits(right, wrong):
    """Were it otherwise, the tests above would prove nothing."""
    grammar = chunk_grammar(10, 6, max_operations=2, max_string_chars=3)
    assert right in grammar
    settings = Settings(phases=[Phase.generate], max_examples=2000)
    assert find(programs(grammar.replace(right, wrong)), is_malformed, settings=settings)


def is_malformed(text):
    return parse(text, "chunk").status == "malformed"


def test_sampling_finds_lines_outside_the_chunk():
    grammar = chunk_grammar(10, 6, max_operations=2, max_string_chars=3)
    found = find(programs(grammar), lambda text: "outside" in str(run_on_chunk(text, 10, 5).outcomes))
    assert "15" in found


def test_walking_finds_what_a_wrong_grammar_admits():
    compiled = compile_grammar(chunk_grammar().replace(*HOLES[0]))
    assert any(is_malformed(sample(compiled, random.Random(seed))) for seed in range(50))


@pytest.mark.parametrize("most", [1, 128, 200, 2_000, 5_000])
def test_the_longest_program_is_under_the_caps(most):
    grammar = chunk_grammar(max_operations=10**6, max_string_chars=most)
    compiled = compile_grammar(grammar)
    edits = int(re.search(r"edit\)\{0,(\d+)\}", grammar)[1]) + 1
    string = "\U0001f600" * min(most, DEFAULT_CAPS.string_chars)
    longest = "\n".join([f'normalize("{string}", "{string}")'] * edits)
    assert (parse(longest, "chunk").status, len(parse(longest, "chunk").operations)) == ("ok", edits)
    if most <= 200:  # xgrammar takes quadratic time for the others
        assert admits(compiled, longest)
        assert not admits(compiled, longest + "\nremove_lines(0, 0)")
    assert admits(compiled, "\n".join(["remove_lines(9999999, 9999999)"] * edits))


def test_strings_of_any_length():
    compiled = compile_grammar(chunk_grammar(max_string_chars=None))
    assert admits(compiled, f'normalize("{"x" * 3000}", "{"é" * 3000}")')
    assert not admits(compiled, 'normalize("")')
    assert not admits(compiled, "\n".join(["remove_lines(0, 1)"] * 65))


def test_the_doc_grammar_admits_two_programs():
    compiled = compile_grammar(doc_grammar())
    assert {sample(compiled, random.Random(seed)) for seed in range(30)} == {"keep_doc()", "drop_doc()"}
    assert not admits(compiled, "drop_doc()\ndrop_doc()")


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 10), (0, 101), (7, 1), (9, 3), (95, 1010), (1998, 3)])
def test_bounded_line_numbers_are_just_the_chunks(first, count):
    compiled = compile_grammar(chunk_grammar(first, count))
    for number in {0, 1, 9, 10, 99, 100, 999, 1000, 1999, first - 1, first, first + count - 1, first + count}:
        inside = first <= number < first + count
        assert admits(compiled, f"remove_lines({number}, {number})") is inside, number
    assert not admits(compiled, f"remove_lines(0{first}, {first})")


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_line_number_rule_is_exact(first, count):
    rule = re.search(r"^line ::= .*$", chunk_grammar(first, count), re.MULTILINE)[0]
    pattern = as_pattern(rule.replace("line", "root"))
    edges = {0, 1, first - 1, first, first + 1, first + count - 2, first + count - 1, first + count, 10 * first}
    for number in edges | set(range(0, 7000, 97)):
        assert bool(pattern.fullmatch(str(number))) is (first <= number < first + count), number


def test_repetition_is_bounded():
    compiled = compile_grammar(chunk_grammar(max_operations=3, max_string_chars=5))
    assert admits(compiled, "\n".join(["remove_lines(0, 1)"] * 3))
    assert not admits(compiled, "\n".join(["remove_lines(0, 1)"] * 4))
    assert admits(compiled, 'normalize("12345", "123\\t5")')
    assert not admits(compiled, 'normalize("123456")')
    assert not admits(compiled, "remove_lines(0, 12345678)")
    assert admits(compile_grammar(chunk_grammar(max_operations=1)), "remove_lines(0, 1)")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "drop_doc()",
        "keep_chunk()\nkeep_chunk()",
        "remove_lines(0,1)",
        "remove_lines(0, 1)\n",
        "remove_lines(-1, 0)",
        "normalize('a')",
        'normalize("")',
        'normalize("a", "")',
        'normalize("a\nb")',
        r'normalize("a\nb")',
        r'normalize("\d")',
    ],
)
def test_other_ways_to_write_are_not_admitted(text):
    assert not admits(compile_grammar(chunk_grammar()), text)


def test_training_targets_are_admitted():
    """What `gold` and `render` write is what the grammar lets a refiner write."""
    compiled = compile_grammar(chunk_grammar())
    normalizes = [
        Normalize('say "hi" \\ é \U0001f600 \u2028 \u00a0', "\t"),
        Normalize("cr\r", "\x01\x7f"),
        Normalize("http://a.b/?c=d&e=(f)", "x"),
    ]
    assert admits(compiled, render(normalizes))
    assert admits(compiled, program_from_keep([True, False, False, True, False]))
    assert admits(compiled, program_from_keep([True]))
    text = "menu\ntea (hot)\nfooter"
    for chunk in split_chunks(text, lambda texts: [1] * len(texts), 2):
        bounded = compile_grammar(chunk_grammar(chunk.first_line, len(chunk.lines)))
        assert admits(bounded, clip(parse(render([RemoveLines(1, 2), Normalize("tea")]), "chunk"), chunk))
