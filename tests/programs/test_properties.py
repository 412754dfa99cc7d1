"""What must hold for every input: nothing raises, nothing else is touched, and reading undoes writing."""

import ast
import json

from hypothesis import given
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
    assert {number for start, end in result.removed for number in range(start, end + 1)} == gone


@given(documents, st.lists(normalizes, max_size=5))
def test_normalising_never_changes_the_number_of_lines(document, operations):
    lines = document.split("\n")
    result = execute(parse(render(operations) or "keep_chunk()", "chunk"), lines)
    assert len(result.lines) == len(lines)


@given(st.lists(st.tuples(documents, programs, st.booleans()), min_size=1, max_size=4))
def test_a_document_is_its_chunks_one_after_the_other(parts):
    chunks, expected, first_line = [], [], 0
    for document, text, truncated in parts:
        lines = document.split("\n")
        chunks.append(ChunkProgram(first_line, len(lines), text, truncated))
        program = parse(text, "chunk", truncated=truncated)
        expected.extend(execute(program, lines, first_line=first_line).lines)
        first_line += len(lines)
    text = "\n".join(document for document, _, _ in parts)
    result = refine_document(text, chunks, checks=OFF)
    assert result.text == "\n".join(expected)
    assert sum(result.statuses.values()) == len(chunks)
    assert (result.outcome == "kept") is (result.text == text)


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


@given(programs, st.integers(0, 40), st.integers(0, 3))
def test_small_caps_are_kept(text, most_bytes, most_operations):
    caps = Caps(program_bytes=most_bytes, operations=most_operations)
    program = parse(text, "chunk", caps=caps)
    if program.status == "ok":
        assert len(text.encode("utf-8", "surrogatepass")) <= most_bytes
        assert len(program.operations) <= most_operations


@given(chunk_operations, st.data())
def test_a_cut_program_is_a_beginning_of_the_whole(operations, data):
    """However generation is cut, what executes are the first operations of the uncut program, unchanged."""
    text = render(operations)
    cut = text[: data.draw(st.integers(1, len(text)))]
    program = parse(cut, "chunk", truncated=True)
    assert program.status == "truncated"
    assert program.operations == tuple(operations)[: len(program.operations)]
    assert len(program.operations) >= cut.count("\n")
