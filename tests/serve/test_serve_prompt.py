"""Prompts: the exact strings a refiner sees, and the cut of long documents."""

import re

import pytest

from prox_hpc.errors import UserError
from prox_hpc.programs import Chunk
from prox_hpc.serve.prompt import CUT_MARK, cut_document, render_chunk, render_doc, tokenizable

CHUNK = Chunk(first_line=7, lines=("Home | About", "", "Text."), tokens=9, oversized=False)


def words(text: str) -> list[tuple[int, int]]:
    """Character spans of words: stands for a tokenizer."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def test_tags() -> None:
    assert render_doc("tags", "a\nb") == "<doc>\na\nb\n</doc>\n"
    assert render_chunk("tags", CHUNK) == "<chunk>\n[007]Home | About\n[008]\n[009]Text.\n</chunk>\n"


def test_page_is_opened_and_numbered_alike_for_both_stages() -> None:
    doc, chunk = render_doc("page", "a\nb"), render_chunk("page", Chunk(0, ("a", "b"), 5, oversized=False))
    assert doc == "<doc>\n[000]a\n[001]b\n</doc>\n"
    assert chunk == "<doc>\n[000]a\n[001]b\n</chunk>\n"


def test_llama2_chat_format_leaves_the_first_token_to_the_tokenizer() -> None:
    system = "<<SYS>>\nYou are a helpful, respectful and honest assistant.\n<</SYS>>\n\n"
    assert render_doc("llama2", "a\nb") == f"[INST] {system}a\nb [/INST]"
    assert (
        render_chunk("llama2", CHUNK) == f"[INST] {system}[doc]\n[007]Home | About\n[008]\n[009]Text.\n[/doc] [/INST]"
    )


def test_unknown_template_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"refiner\.prompt=chatml.*tags, page, llama2"):
        render_doc("chatml", "a")


def test_short_documents_are_not_cut() -> None:
    assert cut_document("a b c d", 4, words) == ("a b c d", False)
    assert cut_document("", 4, words) == ("", False)


def test_long_documents_keep_head_and_tail() -> None:
    text = " ".join(f"w{i}" for i in range(100))
    assert cut_document(text, 5, words) == (f"w0 w1 w2{CUT_MARK}w98 w99", True)


def test_enormous_documents_are_never_tokenised_whole() -> None:
    seen: list[int] = []

    def offsets(text: str) -> list[tuple[int, int]]:
        seen.append(len(text))
        return words(text)

    text = " ".join(f"w{i}" for i in range(1_000_000))
    shown, cut = cut_document(text, 10, offsets)
    assert cut
    assert shown == f"w0 w1 w2 w3 w4{CUT_MARK}" + " ".join(f"w{i}" for i in range(999_995, 1_000_000))
    assert max(seen) < 1000


def test_lone_surrogates_keep_their_place() -> None:
    assert tokenizable("a\ud800b\udfff") == "a\ufffdb\ufffd"
