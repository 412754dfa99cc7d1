"""The generated web: gold that is exactly right, reproducible, and not solved by a simple rule."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from prox_hpc.corpus import phrases
from prox_hpc.corpus.phrases import share
from prox_hpc.corpus.web import SITE_COUNT, Line, Page, make_page, make_site
from prox_hpc.corpus.world import KINDS, ask, capital, make_world, tell
from prox_hpc.programs import ChunkProgram, Normalize, execute, parse, refine_document

PAGES = {sites: [make_page(sites, 3, 0, row) for row in range(1500)] for sites in ("train", "test")}  # type: ignore[arg-type]
GOOD = {sites: [page for page in pages if not page.drop] for sites, pages in PAGES.items()}


@pytest.mark.parametrize("sites", ["train", "test"])
def test_gold_program_makes_exactly_the_clean_text(sites: str) -> None:
    for page in GOOD[sites]:
        assert page.program is not None
        program = parse(page.program, "chunk")
        lines = page.text.split("\n")
        result = execute(program, lines)
        assert (program.status, result.status) == ("ok", "ok")
        assert "\n".join(result.lines) == page.clean
        assert len(lines) == len(page.lines), "a line of a page holds no line break"
        assert not set("{}") & set(page.text), "a slot was not filled"
        refined = refine_document(page.text, [ChunkProgram(0, len(lines), page.program)])
        assert refined.text == page.clean, "the document checks must not drop gold"


@pytest.mark.parametrize("sites", ["train", "test"])
def test_proportions(sites: str) -> None:
    pages, good = PAGES[sites], GOOD[sites]
    assert 0.34 < 1 - len(good) / len(pages) < 0.43
    lines = [line for page in good for line in page.lines]
    assert 0.40 < sum(line.clean is None for line in lines) / len(lines) < 0.52
    clean, raw = sum(len(page.clean) for page in good), sum(len(page.text) for page in pages)
    assert 0.35 < clean / raw < 0.46
    assert 0.03 < sum(page.program == "keep_chunk()" for page in good) / len(good) < 0.15
    assert 0.15 < sum(bool(page.normalizations) for page in good) / len(good) < 0.5
    assert all(page.program is None and page.clean == "" for page in pages if page.drop)
    assert len(Counter(page.template for page in pages)) == 13, "every kind of good page and of junk occurs"
    assert max(len(page.text) for page in pages) < 4000


def line_f1(pages: list[Page], is_noise: Callable[[str], bool]) -> float:
    """F1 of the removed lines, micro."""
    hit = false = missed = 0
    for line in (line for page in pages for line in page.lines):
        said, true = is_noise(line.raw), line.clean is None
        hit, false, missed = hit + (said and true), false + (said and not true), missed + (true and not said)
    return 2 * hit / (2 * hit + false + missed)


@pytest.mark.parametrize("sites", ["train", "test"])
def test_no_simple_rule_solves_it(sites: str) -> None:
    def unended(text: str) -> bool:
        return not text.rstrip().endswith((".", "!", "?", '"'))

    def has_menu_word(text: str) -> bool:
        return any(word.lower() in text.lower() for word in phrases.MENU)

    def short(text: str) -> bool:
        return len(text.split()) < 8

    rules = (short, unended, has_menu_word, lambda text: short(text) or unended(text))
    assert max(line_f1(GOOD[sites], rule) for rule in rules) < 0.8


def test_same_seed_same_page_other_seed_other_page() -> None:
    again = make_page("test", 3, 0, 17)
    assert again == PAGES["test"][17]
    assert len({make_page("test", seed, block, 17).text for seed in range(3) for block in range(3)}) == 9


def test_train_and_test_sites_have_no_wording_in_common() -> None:
    seen: dict[str, set[str]] = {}
    for sites, count in SITE_COUNT.items():
        made = [make_site(sites, number) for number in range(count)]  # type: ignore[arg-type]
        seen[sites] = {phrase for site in made for kind in site.phrases.values() for phrase in kind}
        assert len({site.domain for site in made}) == count
    assert not seen["train"] & seen["test"]
    assert not {page.site for page in PAGES["train"]} & {page.site for page in PAGES["test"]}
    for bank in (phrases.SPAM, phrases.ERRORS, phrases.STUBS):
        assert not set(share(bank, "train")) & set(share(bank, "test"))


def test_damage_is_undone_to_the_right_character() -> None:
    edits = {(e.source_str, e.target_str) for pages in GOOD.values() for page in pages for e in page.normalizations}
    assert {("â€™", "’"), ("Ã©", "é"), ("&nbsp;", " "), ("&#39;", "'")} <= edits
    assert any("://" in source and not target for source, target in edits)


def test_program_names_operations_in_reading_order() -> None:
    raws, cleans = ("menu", "a &nbsp;", "x", "y", "b", "z"), (None, "a", None, None, "b", None)
    lines = tuple(Line(raw, clean) for raw, clean in zip(raws, cleans, strict=True))
    page = Page(lines, (Normalize(" &nbsp;", ""),), False, "s", "d", "/", "article")
    assert page.program == 'remove_lines(0, 0)\nnormalize(" &nbsp;")\nremove_lines(2, 3)\nremove_lines(5, 5)'


def test_world_is_fixed_balanced_and_told() -> None:
    world = make_world(0)
    assert make_world(0) == world
    assert make_world(1) != world
    assert len({entity.name for entity in world.entities}) == 24
    assert len(world.facts()) == 120
    for kind in KINDS:
        for i, relation in enumerate(kind.relations):
            counts = Counter(entity.values[i] for entity in world.of_kind(kind))
            assert counts == dict.fromkeys(relation.values, 1)
            assert all("{v}" in told and "{e}" in told for told in relation.told)
    clean = " ".join(page.clean for page in GOOD["test"])
    rng = random.Random(0)
    untold = 0
    for entity, i in world.facts():
        sentences = {tell(rng, entity, i) for _ in range(60)}
        untold += not any(sentence in clean for sentence in sentences)
    assert untold == 0, "1,500 pages tell every fact"


def test_cloze_items_are_true_balanced_and_worded_half_anew() -> None:
    world = make_world()
    facts = {
        capital(entity.kind.relations[i].asked[stem].format(e=entity.name)): (entity, i, stem)
        for entity, i in world.facts()
        for stem in (0, 1)
    }
    items = ask(random.Random(1), world, 240)
    assert len({item.query for item in items}) == 240
    for item in items:
        entity, i, stem = facts[item.query]
        assert item.choices[item.gold] == entity.values[i]
        assert len(set(item.choices)) == 4
        assert set(item.choices) <= set(entity.kind.relations[i].values)
        template = entity.kind.relations[i].asked[stem]
        begins = any(told.startswith(template + " {v}") for told in entity.kind.relations[i].told)
        assert begins == (stem == 0)
    assert all(40 < Counter(item.gold for item in items)[place] < 80 for place in range(4))
    first = ask(random.Random(2), world, 120)
    assert len({facts[item.query][:2] for item in first}) == 120, "every fact once before any twice"
    assert 45 < sum(facts[item.query][2] for item in first) < 75
    # Guessing the value that is most often the right one: no better than chance (25 %) beyond its noise.
    often = Counter(item.choices[item.gold] for item in items)
    guessed = sum(max(item.choices, key=lambda c: often[c]) == item.choices[item.gold] for item in items)
    assert guessed / len(items) < 0.36
    with pytest.raises(ValueError, match="the world has 240"):
        ask(random.Random(1), world, 241)
