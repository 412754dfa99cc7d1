"""What must hold for every input: nothing raises, nothing else is touched, and reading undoes writing."""

import ast
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prox_hpc.programs import (
    PROFILES,
    Caps,
    ChunkProgram,
    DocumentChecks,
    DropDoc,
    KeepChunk,
    KeepDoc,
    Normalize,
    RemoveLines,
    execute,
    execute_prox_v1,
    parse,
    refine_document,
    render,
)
from prox_hpc.programs.language import quote

any_text = st.text(st.characters(exclude_categories=()), max_size=30)  # surrogates and controls included
numbers = st.integers(-3, 12) | st.integers(-(10**18), 10**18)
removals = st.builds(RemoveLines, numbers, numbers)
normalizes = st.builds(Normalize, any_text, any_text)
chunk_operations = st.lists(removals | normalizes | st.just(KeepChunk()), min_size=1, max_size=8)
WORDS = """remove_lines normalize keep_chunk untouch_doc keep_doc drop_doc start end line_start line_end source_str
    target_str all=True ( ) , = ; # [ ] { } * ** f \\ \' \" ' " \"\"\" ``` ```python 0 1 -2 12 99999999999999999 é ٣"""
pieces = st.sampled_from([*WORDS.split(), " ", "\n", "\t", "\0", "\ud800"])
programs = st.one_of(any_text, st.lists(pieces, max_size=25).map("".join), chunk_operations.map(render))
documents = st.lists(st.text(alphabet="ab \r\u2028\ud800", max_size=6), min_size=1, max_size=10).map("\n".join)
profiles = st.sampled_from(PROFILES)
executed_profiles = st.sampled_from(["v1", "deletion_only"])  # prox_v1 takes a document's programs together
OFF = DocumentChecks(max_removed=2, min_words=0)


@given(programs, st.sampled_from(["doc", "chunk"]), st.booleans(), documents, st.integers(0, 3), profiles)
def test_nothing_raises_and_growth_is_bounded(text, stage, truncated, document, first_line, profile):
    program = parse(text, stage, truncated=truncated)
    lines = document.split("\n")
    result = execute(program, lines, first_line=first_line, profile=profile)
    assert result.status in ("ok", "partial", "truncated", "malformed")
    if profile != "prox_v1":
        assert len("\n".join(result.lines)) <= len(document) * 1.25 + 512
        assert len(result.outcomes) == len(program.operations)
    if program.status == "malformed" and profile != "prox_v1":
        assert (result.lines, result.dropped) == (tuple(lines), False)
    if stage == "chunk":
        assert not result.dropped
    assert all(outcome.reason for outcome in result.outcomes if outcome.outcome == "refused")
    json.dumps([str(outcome) for outcome in result.outcomes])


@given(chunk_operations)
def test_reading_undoes_writing_in_the_chunk_stage(operations):
    text = render(operations)
    program = parse(text, "chunk")
    assert (program.status, program.operations) == ("ok", tuple(operations))
    assert render(program.operations) == text


@given(st.lists(st.just(KeepDoc()), min_size=1) | st.lists(st.just(DropDoc()), min_size=1))
def test_reading_undoes_writing_in_the_doc_stage(operations):
    assert parse(render(operations), "doc").operations == tuple(operations)


ESCAPES = ["\\", *"\\xuUN{}078afntD1é ", "BULLET", "SPACE"]


def in_python(literal):
    """Python's own reading of a literal: the oracle; None where Python refuses it."""
    try:
        return ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        return None


@given(
    st.text(st.characters(exclude_characters="\0\r'", exclude_categories=("Cs",)), max_size=40)
    | st.lists(st.sampled_from(ESCAPES), max_size=14).map("".join)
)
def test_literals_mean_what_they_mean_in_python(body):
    expected = in_python(f"'{body}'")
    program = parse(f"normalize('{body}')", "chunk")
    assert program.operations == (() if expected is None else (Normalize(expected),))


@given(any_text)
def test_a_quoted_text_is_python_too(text):
    assert in_python(quote(text)) == text


@given(documents, st.lists(removals, max_size=5))
def test_removing_keeps_every_other_line_byte_for_byte(document, operations):
    lines = document.split("\n")
    result = execute(parse(render(operations) or "keep_chunk()", "chunk"), lines)
    gone = set()
    for operation in operations:
        if 0 <= operation.line_start <= operation.line_end < len(lines):
            gone.update(range(operation.line_start, operation.line_end + 1))
    assert list(result.lines) == [line for number, line in enumerate(lines) if number not in gone]
    assert spanned(result.removed) == sorted(gone)


@given(documents, chunk_operations)
def test_what_is_left_is_every_other_line_with_the_replacements_in_order(document, operations):
    """Whatever the mixture of calls: each outcome tells exactly what it did."""
    kept = document.split("\n")
    result = execute(parse(render(operations), "chunk"), kept)
    gone = set()
    for done in result.outcomes:
        if done.outcome == "applied" and isinstance(done.op, Normalize):
            assert done.affected == sum(line.count(done.op.source_str) for line in kept) > 0
            kept = [line.replace(done.op.source_str, done.op.target_str) for line in kept]
        elif done.outcome == "applied":
            assert done.affected == done.op.line_end - done.op.line_start + 1 > 0
            gone.update(range(done.op.line_start, done.op.line_end + 1))
        else:
            assert done.affected == 0
    assert list(result.lines) == [line for number, line in enumerate(kept) if number not in gone]


@given(documents, st.lists(normalizes, max_size=5))
def test_normalising_never_changes_the_number_of_lines(document, operations):
    lines = document.split("\n")
    result = execute(parse(render(operations) or "keep_chunk()", "chunk"), lines)
    assert len(result.lines) == len(lines)


sources = st.text(alphabet="ab \r", min_size=1, max_size=3)
targets = st.text(alphabet="xy\u2028", min_size=1, max_size=4)
single = st.builds(Normalize, st.sampled_from("ab\r"), st.text(alphabet="xy", max_size=3))


@given(
    st.lists(st.text(alphabet="aabbxy \r", max_size=12), min_size=1, max_size=6).map("\n".join),
    st.lists(st.builds(Normalize, sources, targets), min_size=1, max_size=5) | st.lists(single, min_size=1, max_size=5),
)
def test_programs_of_replacements_are_idempotent_where_promised(document, operations):
    """If no target holds a character of any source, and none is empty (or every source is a single character), no
    source is left after the program: executing it again changes nothing. A replacement refused for growth is out."""
    program = parse(render(operations), "chunk")
    once = execute(program, document.split("\n"))
    assume(all(done.reason != "growth beyond the cap" for done in once.outcomes))
    again = execute(program, once.lines)
    assert again.lines == once.lines
    assert again.replaced == 0
    assert not any(done.outcome == "applied" for done in again.outcomes)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("aabb", 'normalize("ab")'),  # an empty target brings what stood around it together
        ("a", 'normalize("a", "aa")'),  # a target that holds its source
        ("acb", 'normalize("ab", "x")\nnormalize("c")'),  # a later call makes the source of an earlier one
        ("x", 'normalize("y", "z")\nnormalize("x", "y")'),
    ],
)
def test_where_idempotence_is_not_promised_there_is_none(text, program):
    once = execute(parse(program, "chunk"), [text]).lines
    assert execute(parse(program, "chunk"), once).lines != once


@given(documents, st.lists(removals, max_size=4))
def test_a_keep_program_changes_nothing_however_often(document, refused):
    """Programs of which no call applies are idempotent whatever they say."""
    count = document.count("\n") + 1
    outside = [RemoveLines(count + abs(op.line_start), op.line_end) for op in refused]
    program = parse(render([KeepChunk(), *outside]), "chunk")
    assert execute(program, document.split("\n")).lines == tuple(document.split("\n"))


@given(st.lists(st.tuples(documents, programs, st.booleans()), min_size=1, max_size=4), executed_profiles)
def test_a_document_is_its_chunks_one_after_the_other(parts, profile):
    """As lists of lines, with everything that is said about them: a wholly removed chunk leaves nothing behind."""
    chunks, results, first_line = [], [], 0
    for document, text, truncated in parts:
        lines = document.split("\n")
        chunks.append(ChunkProgram(first_line, len(lines), text, truncated))
        program = parse(text, "chunk", truncated=truncated)
        results.append(execute(program, lines, first_line=first_line, profile=profile))
        first_line += len(lines)
    text = "\n".join(document for document, _, _ in parts)
    result = refine_document(text, chunks, profile=profile, checks=OFF)
    assert result.text == "\n".join(line for chunk in results for line in chunk.lines)
    assert result.operations == tuple(outcome for chunk in results for outcome in chunk.outcomes)
    assert [(report.status, report.operations) for report in result.chunks] == [
        (chunk.status, chunk.outcomes) for chunk in results
    ]
    assert spanned(result.removed) == [number for chunk in results for number in spanned(chunk.removed)]
    assert result.replaced == sum(chunk.replaced for chunk in results)
    assert sum(result.statuses.values()) == len(chunks)
    assert (result.outcome == "kept") is (result.text == text)


def spanned(spans):
    """The line numbers in inclusive spans."""
    return [number for start, end in spans for number in range(start, end + 1)]


@given(documents, st.lists(programs, max_size=3), profiles, st.booleans())
def test_documents_never_raise(document, texts, profile, drop):
    count = document.count("\n") + 1
    chunks = [ChunkProgram(number, 1, text) for number, text in enumerate(texts) if number < count]
    result = refine_document(document, chunks, drop=drop, profile=profile)
    assert (result.text is None) is (result.outcome == "dropped") is (result.reason is not None)


@given(documents, programs)
def test_the_released_executor_never_raises_here(document, text):
    result = execute_prox_v1(document, text)
    assert result.text in ("", document) or result.verdict == "accepted"


@given(programs, st.integers(0, 40), st.integers(0, 3), st.sampled_from(["doc", "chunk"]), st.booleans())
def test_small_caps_are_kept(text, most_bytes, most_operations, stage, truncated):
    caps = Caps(program_bytes=most_bytes, operations=most_operations)
    program = parse(text, stage, truncated=truncated, caps=caps)
    if program.status == "malformed":
        assert program.operations == ()
    else:
        assert len(text.encode("utf-8", "surrogatepass")) <= most_bytes
        assert len(program.operations) <= most_operations


growing = st.builds(Normalize, st.text("ab", min_size=1, max_size=2), st.text("ab", max_size=6))


@given(
    st.lists(st.text("ab", max_size=20), min_size=1, max_size=5).map("\n".join),
    st.lists(growing, min_size=1, max_size=12),
    st.integers(0, 40),
    st.sampled_from([0, 0.25, 1, 3]),
)
def test_growth_is_bounded_by_its_caps_however_often_text_is_replaced(document, operations, chars, ratio):
    """And nothing is refused that would have stayed within the bound."""
    caps = Caps(growth_chars=chars, growth_ratio=ratio)
    result = execute(parse(render(operations), "chunk"), document.split("\n"), caps=caps)
    most = len(document) * (1 + ratio) + chars
    assert len("\n".join(result.lines)) <= most
    text = document
    for done in result.outcomes:
        replaced = text.replace(done.op.source_str, done.op.target_str)
        assert (done.reason == "growth beyond the cap") is (len(replaced) > most)
        text = replaced if done.outcome == "applied" else text


@given(st.integers(1, 4), st.integers(0, 20), st.integers(0, 20), st.integers(1, 30))
def test_an_integer_of_too_many_digits_removes_nothing(digits, start, end, count):
    caps = Caps(integer_digits=digits)
    result = execute(parse(f"remove_lines({start}, {end})", "chunk", caps=caps), ["x"] * count, caps=caps)
    applies = start <= end < count and len(str(end)) <= digits
    assert (result.outcomes[0].outcome == "applied") is applies
    assert len(result.lines) == count - (end - start + 1 if applies else 0)


@given(st.lists(st.sampled_from([*WORDS.split(), " ", "\n", "a\\", "'a"]), min_size=1, max_size=4), st.integers(0, 2))
def test_a_piece_repeated_beyond_the_byte_cap_is_malformed_for_that(pieces, more):
    text = "".join(pieces) * 5_000
    caps = Caps(program_bytes=len(text.encode("utf-8", "surrogatepass")) - 1 + more)
    program = parse(text, "chunk", caps=caps)
    assert (program.reason == "too many bytes") is (more == 0)


@given(chunk_operations, st.data())
def test_a_cut_program_is_a_beginning_of_the_whole(operations, data):
    """However generation is cut, what executes are the first operations of the uncut program, unchanged."""
    text = render(operations)
    cut = text[: data.draw(st.integers(1, len(text)))]
    program = parse(cut, "chunk", truncated=True)
    assert program.status == "truncated"
    assert program.operations == tuple(operations)[: len(program.operations)]
    assert len(program.operations) >= cut.count("\n")
