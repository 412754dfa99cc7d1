"""The page in a real browser, offline: every filter, hostile text inert, a thousand documents, phone, print."""

from pathlib import Path
from typing import Any

import pytest

from prox_hpc import inspect
from prox_hpc.corpus.read import Document
from prox_hpc.programs import ChunkProgram
from prox_hpc.refine.records import Written

DESKTOP = {"viewport": {"width": 1300, "height": 900}}
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


def written(run: Path, file: Path) -> Path:
    assert inspect.main([str(run), "--html", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def html(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one document of each sort."""
    return written(run, tmp_path_factory.mktemp("page") / "page.html")


def opened(browser: Any, html: Path, address: str = "", **context: Any) -> tuple[Any, list[str]]:
    """(page, what went wrong so far); a dialog, and any request for another file or host, count as wrong."""
    page = browser.new_context(offline=True, **(context or DESKTOP)).new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: request.url.startswith((html.as_uri(), "data:")) or wrong.append(request.url))
    page.goto(html.as_uri() + address)
    return page, wrong


def listed(page: Any, count: int | None = None) -> list[str]:
    """The names in the list, once there are `count` of them."""
    from playwright.sync_api import expect

    names = page.locator("#list a:not([hidden]) .name")
    if count is not None:
        expect(names).to_have_count(count)
    return list(names.all_text_contents())  # "inner texts" would be empty where they are scrolled away


def test_marks_are_visible(browser: Any, html: Path) -> None:
    page, wrong = opened(browser, html)
    removed = page.locator(".line.removed")
    assert removed.all_inner_texts() == ["Home | About", "Share this"]
    for line in removed.all():
        assert line.is_visible()
        assert line.locator("del").evaluate("e => getComputedStyle(e).textDecorationLine") == "line-through"
    assert [line.get_attribute("data-number") for line in page.locator(".line").all()] == ["000", "001", "002"]
    program = page.locator(".program")
    assert program.locator("li.applied code").all_inner_texts() == ["remove_lines(0, 0)", "remove_lines(2, 2)"]
    assert program.locator("li.refused").inner_text().split() == [
        "✗",
        "remove_lines(7,",
        "9)",
        "refused:",
        "line",
        "outside",
        "the",
        "chunk",
    ]
    page.goto(html.as_uri() + "#doc=2")
    fragments = page.locator(".line.replaced")
    assert fragments.locator("del").inner_text() == "oneU+00A0two  three"
    assert fragments.locator("ins").inner_text() == "one two three"
    colours = [fragments.locator(tag).evaluate("e => getComputedStyle(e).color") for tag in ("del", "ins")]
    assert len({*colours, page.evaluate("getComputedStyle(document.body).color")}) == 3
    assert wrong == []


def test_a_dropped_document_says_why(browser: Any, html: Path) -> None:
    page, wrong = opened(browser, html, "#doc=3")
    assert page.locator(".badge").inner_text() == "dropped"
    assert "doc stage dropped" in page.locator(".verdict").inner_text()
    page.goto(html.as_uri() + "#doc=4")
    assert "too few words" in page.locator(".verdict").inner_text()
    assert wrong == []


def test_folds_open(browser: Any, html: Path) -> None:
    page, wrong = opened(browser, html, "#doc=2")
    assert page.locator(".line").count() == 4
    page.locator(".fold").click()
    assert page.locator(".line").count() == 40
    assert page.locator(".line").last.inner_text() == "line 39"
    page.goto(html.as_uri() + "#doc=2&q=line+30")
    assert page.locator(".line.found").all_inner_texts() == ["line 30"]
    page.keyboard.press("e")
    assert page.locator(".fold").count() == 0
    assert wrong == []


def test_every_program_is_shown_once_however_it_is_unfolded(browser: Any, make_run: Any, tmp_path: Path) -> None:
    document = Document("d", "\n".join(f"line {n}" for n in range(60)), {})
    programs = ("remove_lines(0, 0)", "remove_lines(99, 99)", "keep_chunk()", "remove_lines(47, 47)", "keep_chunk()")
    chunks = [ChunkProgram(12 * n, 12, text) for n, text in enumerate(programs)]
    page, wrong = opened(browser, written(make_run([(document, Written(1.0, chunks=chunks))]), tmp_path / "page.html"))
    heads = ["lines 000–011 ok", "lines 012–023 partial", "lines 036–047 ok", "lines 048–059 ok"]
    assert page.locator(".program p").all_inner_texts() == heads
    assert page.locator(".fold").all_inner_texts() == [
        "8 unchanged lines",
        "24 unchanged lines, 1 program",
        "8 unchanged lines",
        "9 unchanged lines",
    ]
    while page.locator(".fold").count():
        page.locator(".fold").last.click()
    everything = [*heads[:2], "lines 024–035 ok", *heads[2:]]
    assert page.locator(".program p").all_inner_texts() == everything
    assert page.locator(".line .text").all_inner_texts() == document.text.split("\n")
    page.locator(".unfold").click()
    assert page.locator(".program p").all_inner_texts() == everything
    assert wrong == []


def test_hostile_text_is_inert_and_its_unseen_characters_are_seen(browser: Any, html: Path) -> None:
    assert html.read_text().count("</script>") == 2  # the page's own
    page, wrong = opened(browser, html, "#doc=6")
    assert page.locator("#detail h2").inner_text() == "edited <b>hostile</b>U+202E"
    assert page.locator("#detail :is(script, img, b:not(.program b), i, a)").count() == 0  # its address is no link
    texts = page.locator(".line .text").all_inner_texts()
    assert texts[:2] == ["</script><script>alert(1)</script>", "<img src=x onerror=alert(2)> &amp; <!-- --> ]]>"]
    marks = page.locator(".line .unseen").all_inner_texts()
    assert marks == ["U+202E", "U+202C", "U+200B", "U+0000", "U+001B", "U+001B", "U+2028", "U+0085", "U+000D"]
    assert page.locator(".line ins").inner_text() == "<i>0</i>"
    assert page.locator(".program pre").inner_text().strip() == "print('</script>')"
    assert len(texts[3]) < 2_000
    page.locator(".more").click()
    assert page.locator(".line .text").nth(3).inner_text() == "x" * 100_000
    assert texts[5] == "{{ 7 * 7 }} [bold]not markup[/bold] ${alert(3)}"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert wrong == []


def test_filters_change_what_is_listed_and_the_address_keeps_them(browser: Any, html: Path) -> None:
    page, wrong = opened(browser, html)
    everything = listed(page)
    assert everything == ["/museum", "/s", "http://spam.test/", "short", "blank", "javascript:alert(4)", "/c"]
    for name, value, expected in (
        ("outcome", "dropped", ["http://spam.test/", "short"]),
        ("outcome", "dropped/too few words", ["short"]),
        ("status", "truncated", ["/c"]),
        ("op", "normalize", ["/s", "javascript:alert(4)"]),
        ("op", "remove_lines/refused/line outside the chunk", ["/museum"]),
    ):
        page.locator(f"#{name}").select_option(value)
        assert listed(page, len(expected)) == expected
        assert page.locator("#count").inner_text() == f"{len(expected)} of 7"
        again, _ = opened(browser, html, page.evaluate("location.hash"))
        assert listed(again) == expected
        assert again.locator(f"#{name}").input_value() == value
        page.locator("#clear").click()
        assert listed(page) == everything
    page.locator("#domain").fill("B.test")
    assert listed(page, 2) == ["/s", "/c"]
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("Footer")
    assert listed(page, 1) == ["/c"]
    assert page.evaluate("CSS.highlights.get('found').size") == 2
    page.locator("#q").fill("no such words")
    assert listed(page, 0) == []
    assert page.locator(".none").is_visible()
    assert wrong == []


def test_the_summary_counts_and_filters(browser: Any, html: Path) -> None:
    page, wrong = opened(browser, html)
    rows = {row.get_attribute("data-key"): row for row in page.locator("tr[data-key]").all()}
    counts = {key: [int(cell) for cell in row.locator("td").all_inner_texts()] for key, row in rows.items()}
    assert counts["edited"] == [4]
    assert counts["dropped/doc program"] == [1]
    assert counts["ok"] == [3, 3]
    assert counts["truncated/last call cut off"] == [1, 1]
    assert counts["remove_lines"] == [6, 4]
    assert counts["normalize/refused/source not found"] == [1, 1]
    assert counts["b.test"] == [2]
    rows["partial"].locator("button").click()
    assert listed(page) == ["/museum", "/s"]
    assert page.locator(".program.hit").count() == 1
    rows["partial"].locator("button").click()
    assert len(listed(page)) == 7
    assert wrong == []


def test_an_address_with_nonsense_shows_everything(browser: Any, html: Path) -> None:
    page, wrong = opened(browser, html, "#status=nonsense&op=%22%3E&doc=99&x=1")
    assert len(listed(page)) == 7
    assert page.locator("#detail h2").is_visible()
    assert wrong == []


def test_it_follows_the_colour_scheme_with_enough_contrast(browser: Any, html: Path) -> None:
    papers = set()
    for scheme in ("light", "dark"):
        page, _ = opened(browser, html, "#doc=6", **DESKTOP, color_scheme=scheme)
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for selector in (
            "body",
            ".line.removed del",
            ".line.replaced ins",
            ".program p",
            ".sub",
            ".badge",
            ".fold, .unseen",
        ):
            assert page.evaluate(CONTRAST, selector) > 4.5, (scheme, selector)
    assert len(papers) == 2


def test_a_phone_shows_the_list_or_a_document_and_needs_no_sideways_scrolling(browser: Any, html: Path) -> None:
    page, wrong = opened(browser, html, **PHONE)
    assert not page.locator("#detail").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#list a").nth(5).click()
    assert page.locator("#detail").is_visible()
    assert not page.locator("#list").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#next").click()
    assert page.locator("#detail h2").inner_text() == "edited cut"
    page.go_back()
    assert page.locator("#list").is_visible()
    page.locator("#list a").nth(0).click()
    page.locator("#back").click()
    assert page.locator("#list").is_visible()
    assert wrong == []


def test_it_prints_the_document_in_light_colours(browser: Any, html: Path, tmp_path: Path) -> None:
    page, wrong = opened(browser, html, **DESKTOP, color_scheme="dark")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})  # a sheet is as narrow as a phone
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#list").is_visible()
    assert page.locator(".line.removed").first.is_visible()
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 5_000
    assert wrong == []


def test_a_thousand_documents(browser: Any, make_run: Any, tmp_path: Path) -> None:
    """Listed all, filtered and walked through by keyboard; only the one that is read has its lines in the page."""

    def one(number: int) -> tuple[Document, Written]:
        lines = [f"line {n} of page {number}, with some words that stay as they are" for n in range(60)]
        program = (
            f'remove_lines({number % 60}, {number % 60})\nnormalize("some", "many")' if number % 4 else "keep_chunk()"
        )
        document = Document(
            f"d{number}", "\n".join(lines), {"url": f"https://www.site{number % 90}.test/page/{number}"}
        )
        return document, Written(1.0 if number % 7 else -1.0, chunks=[ChunkProgram(0, 60, program)])

    html = written(make_run([one(number) for number in range(1200)]), tmp_path / "page.html")
    page, wrong = opened(browser, html)
    assert page.locator("#list a").count() == 1000
    assert "1,200 of 1,200 documents match, 1,000 drawn (seed 0)" in page.locator("header").inner_text()
    assert page.evaluate("document.querySelectorAll('.line').length") < 200
    page.locator("#outcome").select_option("edited")
    page.locator("#count", has_text=" of 1,000").wait_for()
    names = listed(page)
    numbers = [int(name.removeprefix("/page/")) for name in names]
    assert 500 < len(numbers) < 800
    assert numbers == [number for number in sorted(numbers) if number % 7 and number % 4]
    page.keyboard.press("Escape")
    page.locator("body").press("j")
    page.locator("body").press("j")
    page.locator("body").press("k")
    assert page.locator("[aria-current]").inner_text().startswith(names[1])
    assert page.locator("#detail .address").inner_text().endswith(names[1])
    assert page.locator(".line.removed").count() == 1
    page.locator("#q").fill(f"59 of page {numbers[-1]},")
    assert listed(page, 1) == names[-1:]
    assert wrong == []


CONTRAST = """selector => {
  // WCAG 2 contrast of an element's text with what is painted behind it
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (...layers) => {
    for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const element = document.querySelector(selector);
  const behind = [];
  for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
  const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const both = [light(rgb(...behind)), light(rgb(...behind, getComputedStyle(element).color))];
  return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
}"""
