"""The study's own tokenizer: nothing is lost in it, and what a refiner points at or copies is one token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prox_hpc.corpus.web import make_page
from prox_hpc.errors import UserError
from prox_hpc.refiner import tokenizer as own


@pytest.fixture(scope="module")
def tokenizer():
    return own.train((make_page("train", 9001, 0, row).text for row in range(300)), 2048)


@pytest.fixture(scope="module")
def loaded(tokenizer, tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    own.save(tokenizer, folder)
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("[]0123,() \n\r\t<>|dochunk/rmvels_'\"\u00a0é"))
def test_any_text_round_trips(loaded, text):
    ids = loaded(text, add_special_tokens=True)["input_ids"]
    assert loaded.decode(ids) == text
    assert max(ids, default=0) < 2048


def test_pages_and_programs_round_trip_and_pages_get_shorter(loaded):
    for row in range(50):
        page = make_page("test", 9001, 0, row)
        for text in (page.text, page.program or ""):
            assert loaded.decode(loaded(text)["input_ids"]) == text
        assert len(loaded(page.text)["input_ids"]) < len(page.text) / 2


def test_what_a_refiner_points_at_is_one_token(loaded):
    whole = [f"[{line:03d}]" for line in range(300)] + [str(number) for number in range(300)]
    whole += [*own.TAGS, *own.CALL_TOKENS, "\n"]
    for text in whole:
        assert len(loaded(text)["input_ids"]) == 1, text
    assert loaded.convert_ids_to_tokens(loaded("remove_lines(12, 299)")["input_ids"])[1:4:2] == ["12", "299"]
    marked = loaded("[000]Home 12, 13\n[001]\n[012]x")["input_ids"]
    shown = [loaded.decode([token]) for token in marked]
    assert [token for token in shown if token.startswith("[")] == ["[000]", "[001]", "[012]"]


def test_end_of_text_is_zero_and_nothing_is_put_before_a_text(loaded):
    assert (loaded.eos_token, loaded.eos_token_id, loaded.pad_token_id) == ("<|endoftext|>", 0, 0)
    assert loaded("a")["input_ids"] == loaded("a", add_special_tokens=False)["input_ids"]
    assert len(loaded) <= 2048


def test_a_vocabulary_without_room_for_words_is_refused():
    with pytest.raises(UserError, match="vocab_size=800"):
        own.train(["text"], 800)
