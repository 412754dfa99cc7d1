"""What there is to see of a document: nothing lost, nothing invented, what is dull folded away."""

from hypothesis import given
from hypothesis import strategies as st

from prox_hpc.characters import pieces, printable
from prox_hpc.corpus.read import Document
from prox_hpc.inspection.view import NO_URL, ChunkView, DocumentView, Fold, LineView, domain, view
from prox_hpc.programs import ChunkProgram, DocumentChecks, Normalize, RemoveLines, render
from prox_hpc.refine.records import Execution, Written, execute, row

OFF = Execution(checks=DocumentChecks(max_removed=2, min_words=0))
BODY = "The museum opened its doors in the old town and has been visited by many people since."


def viewed(
    text: str, *chunks: ChunkProgram, execution: Execution = OFF, score: float = 1.0, **metadata: str
) -> DocumentView:
    document = Document("d", text, metadata)
    written = Written(score, chunks=list(chunks))
    return view(document, row(document, written, execution), execute(document.id, document.text, written, execution))


def old(line: LineView) -> str:
    return "".join(part if isinstance(part, str) else part[0] for part in line.parts)


def new(line: LineView) -> str:
    return "".join(part if isinstance(part, str) else part[1] for part in line.parts)


lines = st.text(alphabet="ab \u202e\U0001f600", max_size=8)
operations = st.lists(
    st.builds(RemoveLines, st.integers(-1, 14), st.integers(-1, 14))
    | st.builds(Normalize, st.text(alphabet="ab ", max_size=2), st.text(alphabet="abc", max_size=3)),
    min_size=1,
    max_size=6,
).map(render)
chunks = st.lists(st.tuples(st.lists(lines, min_size=1, max_size=7), operations | st.just("no program")), max_size=4)


@given(chunks, st.sampled_from(["v1", "deletion_only", "prox_v1"]))
def test_a_view_holds_the_document_before_and_after(parts, profile):
    texts = [line for here, _ in parts for line in here] or ["a"]
    first, programs = 0, []
    for here, program in parts:
        programs.append(ChunkProgram(first, len(here), program))
        first += len(here)
    document = Document("d", "\n".join(texts), {})
    execution = Execution(chunk=bool(programs), profile=profile, checks=OFF.checks)
    written = Written(1.0, chunks=programs)
    result = execute(document.id, document.text, written, execution)
    seen = view(document, row(document, written, execution), result)
    assert [old(line) for line in seen.lines] == texts
    assert "\n".join(new(line) for line in seen.lines if line.removed_by is None) == result.after
    assert sum(line.removed_by is not None for line in seen.lines) == result.removed_lines
    assert [line.changed for line in seen.lines] == [
        line.removed_by is not None or new(line) != text for line, text in zip(seen.lines, texts, strict=True)
    ]


@given(st.sets(st.integers(0, 79), max_size=5), st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_rows_show_every_line_once_or_in_a_fold_and_never_fold_what_matters(wanted, sizes):
    removed = [number in wanted for number in range(sum(sizes))]
    programs, first = [], 0
    for size in sizes:
        gone = [RemoveLines(n, n) for n in range(first, first + size) if removed[n]]
        programs.append(ChunkProgram(first, size, render(gone) or "keep_chunk()"))
        first += size
    seen = viewed("\n".join(f"{n}" for n in range(len(removed))), *programs)
    numbers, shown, heads, folded_heads = [], [], [], 0
    for one in seen.rows():
        if isinstance(one, Fold):
            numbers += range(one.first, one.last + 1)
            folded_heads += one.chunks
            assert one.lines >= 4
        elif isinstance(one, ChunkView):
            assert one.at == len(numbers)  # right before its first line
            heads.append(one)
        else:
            numbers.append(one[0])
            shown.append(one[0])
    assert numbers == list(range(len(removed)))
    changed = {number for number, gone in enumerate(removed) if gone}
    near = {n + d for n in changed for d in range(-3, 4)} & set(numbers)
    assert near <= set(shown)
    assert len(heads) + folded_heads == len(seen.chunks)
    assert all(head in heads for head in seen.chunks if not head.quiet)


def test_lines_say_which_call_removed_them_and_fragments_what_they_read_before() -> None:
    seen = viewed(
        "a -- b\nmenu\nmenu\nc", ChunkProgram(0, 4, 'remove_lines(1, 2)\nremove_lines(2, 2)\nnormalize("--", "–")')
    )
    assert seen.lines == (
        LineView(("a ", ("--", "–"), " b")),
        LineView(("menu",), "remove_lines(1, 2)"),
        LineView(("menu",), "remove_lines(1, 2)"),
        LineView(("c",)),
    )
    assert (seen.outcome, seen.removed_lines, seen.replaced, seen.words) == ("edited", 2, 1, (6, 4))


def test_a_line_that_is_normalised_and_removed_is_shown_as_it_was() -> None:
    seen = viewed("a b\nc", ChunkProgram(0, 2, 'normalize("a", "x")\nremove_lines(0, 0)'))
    assert seen.lines[0] == LineView(("a b",), "remove_lines(0, 0)")


def test_programs_tell_what_came_of_each_call() -> None:
    (chunk,) = viewed(
        "a a\nb", ChunkProgram(0, 2, "remove_lines(start=5,end=6)\nnormalize('a', 'c')\nkeep_chunk()")
    ).chunks
    told = [(one.call, one.outcome, one.reason, one.affected) for one in chunk.operations]
    assert told == [
        ("remove_lines(5, 6)", "refused", "line outside the chunk", 0),
        ('normalize("a", "c")', "applied", None, 2),
        ("keep_chunk()", "no_change", None, 0),
    ]
    assert (chunk.status, chunk.executed, chunk.quiet) == ("partial", True, False)
    assert chunk.as_written == "remove_lines(start=5,end=6)\nnormalize('a', 'c')\nkeep_chunk()"


def test_a_canonical_program_is_not_repeated_as_written() -> None:
    kept, bad, none = viewed(
        "a\nb\nc", ChunkProgram(0, 1, "keep_chunk()\n"), ChunkProgram(1, 1, "free text"), ChunkProgram(2, 1, None)
    ).chunks
    assert (kept.as_written, bad.as_written, none.as_written) == (None, "free text", None)
    assert (kept.quiet, bad.quiet, none.quiet) == (True, False, True)
    assert (bad.status, bad.reason) == ("malformed", "unknown call")


def test_programs_that_were_not_executed_are_shown_as_such() -> None:
    seen = viewed("a\nb", ChunkProgram(0, 2, "remove_lines(0, 0)"), execution=Execution(), score=-3.5)
    assert (seen.outcome, seen.reason, seen.score) == ("dropped", "doc program", -3.5)
    (chunk,) = seen.chunks
    assert (chunk.executed, chunk.status, chunk.as_written) == (False, "ok", "remove_lines(0, 0)")
    assert not any(line.changed for line in seen.lines)


def test_programs_of_the_released_executor_are_one() -> None:
    execution = Execution(profile="prox_v1", checks=OFF.checks)
    seen = viewed(
        "a\nb\nc",
        ChunkProgram(0, 1, "remove_lines(start=0, end=0)"),
        ChunkProgram(1, 2, "remove_lines(start=2, end=2)"),
        execution=execution,
    )
    assert [line.changed for line in seen.lines] == [True, False, True]
    assert len(seen.chunks) == 1
    assert seen.chunks[0].program == "remove_lines(start=0, end=0)\nremove_lines(start=2, end=2)"


def test_programs_in_the_wrong_place_are_shown_within_the_document() -> None:
    seen = viewed(
        "a\nb", ChunkProgram(0, 2, "keep_chunk()"), ChunkProgram(70, 3, "keep_chunk()"), ChunkProgram(1, 1, "x")
    )
    assert [(chunk.at, chunk.status) for chunk in seen.chunks] == [(0, "ok"), (1, "misplaced"), (2, "misplaced")]
    assert [one.status for one in seen.rows() if isinstance(one, ChunkView)] == ["ok", "misplaced", "misplaced"]


def test_a_document_in_which_nothing_changed_opens_and_folds() -> None:
    seen = viewed("\n".join("abcdefghijklmnop"), ChunkProgram(0, 16, "keep_chunk()"))
    shown = [one for one in seen.rows() if not isinstance(one, ChunkView)]
    assert [one[0] for one in shown[:-1]] == list(range(8))
    assert shown[-1] == Fold(8, 15)


def test_domains() -> None:
    hosts = {
        "https://www.Example.org:80/a": "www.example.org",
        "example.org/a": "example.org",
        "http://[broken": NO_URL,
        "javascript:alert(1)": NO_URL,
        "": NO_URL,
    }
    for url, host in hosts.items():
        assert domain(Document("d", "", {"url": url})) == host
    assert domain(Document("d", "", {})) == NO_URL


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_or_direction_mark_is_ever_printed(text):
    shown = printable(text)
    assert not {*shown} & {*"\0\x1b\n\r\x7f\x85\x9b\u2028\u202e\u2066\u200f\ufeff\ud800"}
    shown.encode()  # nor a lone surrogate
    assert "".join(chr(int(piece[2:], 16)) if marked else piece for piece, marked in pieces(text)) == text
    assert "\u00a0" not in "".join(piece for piece, marked in pieces(text, spaces=True) if not marked)
