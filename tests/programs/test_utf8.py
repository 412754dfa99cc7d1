"""A document given as UTF-8 comes out as the same document given as text."""

from hypothesis import given
from hypothesis import strategies as st

from prox_hpc.programs import Caps, ChunkProgram, DocumentChecks, Normalize, RemoveLines, refine_document, render
from prox_hpc.refine.records import is_blank

pieces = st.text(alphabet="ab \té€\u00a0\u2028😀\ud800\x1c", max_size=6)
texts = st.lists(pieces, min_size=1, max_size=8).map("\n".join)
programs = st.lists(
    st.builds(RemoveLines, st.integers(0, 8), st.integers(0, 8)) | st.builds(Normalize, pieces, pieces), max_size=5
).map(render)
checks = st.sampled_from([DocumentChecks(), DocumentChecks(0.5, 2), DocumentChecks(2, 0)])
caps = st.builds(Caps, growth_chars=st.integers(0, 4), growth_ratio=st.sampled_from([0.0, 0.5]))


def utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@given(texts, st.lists(programs, min_size=1, max_size=3), st.sampled_from(["v1", "prox_v1"]), checks, caps)
def test_both_give_the_same(text: str, written: list[str], profile: str, checks: DocumentChecks, caps: Caps) -> None:
    count = text.count("\n") + 1
    size = -(-count // len(written))
    chunks = [ChunkProgram(n * size, min(size, count - n * size), one) for n, one in enumerate(written)]
    options = {"profile": profile, "checks": checks, "caps": caps}
    of_text = refine_document(text, chunks, **options)  # type: ignore[arg-type]
    of_utf8 = refine_document(utf8(text), chunks, **options)  # type: ignore[arg-type]
    assert (of_utf8.before, of_utf8.after) == (utf8(text), utf8(of_text.after))
    assert of_utf8[2:] == of_text[2:]
    assert (of_utf8.words_in, of_utf8.words_out) == (of_text.words_in, of_text.words_out)


@given(st.text(alphabet="a \n\t\x1c\x85\u00a0\u2028\u200bé", max_size=4))
def test_both_are_blank_or_neither(text: str) -> None:
    assert is_blank(utf8(text)) == is_blank(text) == (not text.strip())
