"""report.html in a real browser, offline: no error, curves visible, no overflow, themes, sorting, print."""

import re
from pathlib import Path
from typing import Any

from prox_hpc.report.html import render

Report = tuple[Path, dict[str, Any]]


def opened(browser: Any, folder: Path, **context: Any) -> tuple[Any, list[str]]:
    """(page, what went wrong so far) of a report; any request for another file or host counts as wrong."""
    page = browser.new_context(offline=True, **context).new_page()
    wrong: list[str] = []
    address = (folder / "report.html").as_uri()
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url in (address, "data:,") or wrong.append(request.url))
    page.goto(address)
    return page, wrong


def test_the_curves_are_visible_and_nothing_goes_wrong(browser: Any, whole: Report) -> None:
    page, wrong = opened(browser, whole[0], viewport={"width": 1100, "height": 900})
    assert page.locator("svg.plot").count() == 3, "two tasks against FLOPs, the first against hours too"
    for plot in page.locator("svg.plot").all():
        assert plot.is_visible()
        for arm in ("raw", "gopher", "prox_dc", "gold"):
            line = plot.locator(f"[data-arm={arm}] path.line")
            box = line.bounding_box()
            assert box["width"] > 100
            assert box["height"] > 20
            assert plot.locator(f"[data-arm={arm}] path.dot").count() == 4
    colours = page.evaluate(
        "[...document.querySelectorAll('svg.plot:first-of-type .line')].map(l => getComputedStyle(l).stroke)"
    )
    assert len(set(colours)) == 4
    inside = page.evaluate(
        "[...document.querySelectorAll('svg.plot')].every(s => { const o = s.getBoundingClientRect();"
        " return [...s.querySelectorAll('path, text')].every(e => { const b = e.getBoundingClientRect();"
        " return b.left >= o.left - 1 && b.right <= o.right + 1"
        " && b.top >= o.top - 1 && b.bottom <= o.bottom + 1; }); })"
    )
    assert inside
    assert wrong == []


def test_a_phone_needs_no_sideways_scrolling(browser: Any, whole: Report) -> None:
    page, wrong = opened(browser, whole[0], viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = page.evaluate("[...document.querySelectorAll('table')].map(t => getComputedStyle(t.parentNode).overflowX)")
    assert set(boxes) == {"auto"}, "tables scroll inside their box"
    stay = page.evaluate("[...document.querySelectorAll('tbody td:first-child')].map(c => c.offsetWidth)")
    assert max(stay) < 0.5 * 390, "the column that stays leaves room for the others"
    assert page.locator("svg.plot").first.bounding_box()["width"] > 300
    text = page.evaluate("document.querySelector('svg.plot text').getBoundingClientRect().height")
    assert text > 9
    assert wrong == []


def test_it_follows_the_colour_scheme(browser: Any, whole: Report) -> None:
    paper = {}
    for scheme in ("light", "dark"):
        page, _ = opened(browser, whole[0], color_scheme=scheme)
        paper[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.body).color")
        assert contrast(paper[scheme], ink) > 7
        soft = page.evaluate("getComputedStyle(document.querySelector('.note')).color")
        assert contrast(paper[scheme], soft) > 4.5
    assert paper["light"] != paper["dark"]


def test_tables_sort_by_number_and_keep_what_is_absent_last(browser: Any, whole: Report) -> None:
    page, wrong = opened(browser, whole[0])
    table = page.locator("#arms ~ .scroll table").first
    head = table.locator("thead th").nth(3)

    def tokens() -> list[int]:
        return [int(text.replace(",", "")) for text in table.locator("tbody td:nth-child(4)").all_inner_texts()]

    head.click()
    assert tokens() == sorted(tokens(), reverse=True)
    head.click()
    assert tokens() == sorted(tokens())
    assert wrong == []


def test_heads_sort_by_keyboard_and_say_how(browser: Any, whole: Report) -> None:
    page, wrong = opened(browser, whole[0])
    heads = page.locator("#arms ~ .scroll table").first.locator("thead th")
    button = heads.nth(3).get_by_role("button")
    button.focus()
    page.keyboard.press("Space")
    assert heads.nth(3).get_attribute("aria-sort") == "descending", "figures: the largest first"
    page.keyboard.press("Enter")
    assert heads.nth(3).get_attribute("aria-sort") == "ascending"
    heads.nth(0).click()
    assert heads.nth(0).get_attribute("aria-sort") == "ascending", "names: from a to z"
    assert heads.nth(3).get_attribute("aria-sort") is None
    assert wrong == []


def test_ledger_corpora_and_missing_steps_sort(browser: Any, fabricate: Any, make_report: Any) -> None:
    task = fabricate(skip=lambda step: step.kind == "evaluate", overrides=("arm=[raw,prox_dc]",))
    page, wrong = opened(browser, make_report(task)[0])
    for section, column, numbers in (("ledger", 3, False), ("missing", 0, False), ("evidence", 2, True)):
        table = page.locator(f"#{section} ~ .scroll table").first
        table.locator("thead th").nth(column).click()
        assert table.locator("thead th").nth(column).get_attribute("aria-sort") is not None
        texts = table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()
        assert len(texts) > 1
        if numbers:
            texts = [int(text.replace(",", "")) for text in texts]
            assert texts == sorted(texts, reverse=True)
    assert wrong == []


def test_a_row_that_nobody_knows_is_shown_with_its_reason(browser: Any, fabricate: Any, make_report: Any) -> None:
    task = fabricate(skip=lambda step: step.kind in ("adapt", "evaluate"), overrides=("arm=[raw,prox_dc]",))
    folder, report = make_report(task)
    assert {arm["arm"]: arm["flops"] for arm in report["charge"]["arms"]}["prox_dc"] is None
    page, wrong = opened(browser, folder)
    table = page.locator("#ledger ~ .scroll table").nth(1)
    place = table.locator("thead th").all_inner_texts().index("sft")
    cells = table.locator(f"tbody td:nth-child({place + 1})").all_inner_texts()
    assert cells == ["", "–\nnot trained yet"]
    assert wrong == []


def test_the_files_beside_it_are_linked(browser: Any, whole: Report) -> None:
    page, _ = opened(browser, whole[0])
    linked = page.locator("header a").evaluate_all("links => links.map(link => link.href)")
    files = ("report.json", "scores.csv", "arms.csv", "ledger.csv")
    assert linked == [(whole[0] / name).as_uri() for name in files]
    assert all((whole[0] / name).exists() for name in files)


def test_versions_and_machines_are_named(browser: Any, whole: Report) -> None:
    page, _ = opened(browser, whole[0])
    page.get_by_text("Versions and machines").click()
    told = page.locator("details", has_text="Versions and machines").inner_text()
    assert "torch 2.13.0" in told
    assert "sglang, by the server’s own account: 0.5.23" in told
    assert re.search(r"8 NVIDIA H100 80GB HBM3 \(driver 570.86.15\), 64 cores of AMD EPYC 9454: adapt, .*refine", told)
    assert whole[1]["reported_on"] in told


def test_every_verdict_has_a_colour_of_its_own(browser: Any, whole: Report, tmp_path: Path) -> None:
    colours = {}
    for verdict in ("saving", "offset", "negative", "unclear"):
        about = whole[1]["headline"] | {"verdict": verdict}
        (tmp_path / "report.html").write_text(render(whole[1] | {"headline": about}))
        page, _ = opened(browser, tmp_path)
        colours[verdict] = page.evaluate("getComputedStyle(document.querySelector('.headline')).borderLeftColor")
    assert len(set(colours.values())) == 4


def test_the_scores_are_laid_out_as_in_the_paper_and_sort(browser: Any, whole: Report) -> None:
    page, wrong = opened(browser, whole[0])
    table = page.locator("#scores + .scroll table")
    assert table.locator("thead th").all_inner_texts() == ["arm", "world_bpb\nbits per byte", "world_cloze"]
    best = table.locator("td.best").all()
    assert len(best) == 2
    arms = [cell.locator("xpath=../td[1]").inner_text() for cell in best]
    assert arms == ["prox_dc", "prox_dc"], "gold is a ceiling"
    table.locator("thead th").nth(2).click()
    assert table.locator("tbody td:first-child").all_inner_texts()[0] == "gold"
    assert float(best[1].inner_text().split()[0]) > 50, "accuracies are in percent"
    assert wrong == []


def test_alarms_commands_and_logs_are_shown(browser: Any, fabricate: Any, make_report: Any) -> None:
    task = fabricate(shift={"prox_dc": -2.0}, overrides=("report.alarms.doc_f1=0.99", "arm=[raw,prox_dc]"))
    logs = task.store / "steps" / task.step.inputs["refine"] / "logs" / "odd name #1"
    logs.mkdir(parents=True)
    (logs / "0_log.out").write_text("what the task said")
    folder, report = make_report(task)
    page, wrong = opened(browser, folder, viewport={"width": 390, "height": 844})
    alarms = page.locator("#alarms li")
    assert alarms.count() == 2
    assert [alarm["name"] for alarm in report["alarms"]] == ["doc_f1", "score_drop"]
    assert f"prox_hpc.inspect {report['run']}" in alarms.first.locator("code").inner_text()
    assert alarms.first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert wrong == []
    link = page.get_by_role("link", name="0_log.out")
    assert link.evaluate("a => a.href") == (logs / "0_log.out").as_uri()


def test_documents_behind_an_alarm_are_text_and_nothing_else(browser: Any, whole: Report, tmp_path: Path) -> None:
    hostile = "</pre></details><script>document.title = 'taken'</script><img src=x onerror=alert(1)>" + "w" * 400
    one = {"document": hostile, "url": "javascript:alert(2)", "said": hostile, "parts": []}
    one["parts"] = [{"label": hostile, "text": f"{hostile}\n{{{{ 7 * 7 }}}}"}]
    behind = {"excerpts": [one, one], "matched": 12, "looked_at": 5000, "note": ""}
    about = {"text": "F1 low", "commands": ["python -m x"], "setting": "report.alarms.doc_f1", "limit": 0.75}
    unread = {"excerpts": [], "matched": 0, "looked_at": 0, "note": "The documents cannot be shown: <b>gone</b>"}
    alarms = [about | {"documents": behind}, about | {"documents": unread}, about]
    (tmp_path / "report.html").write_text(render(whole[1] | {"alarms": alarms}))
    page, wrong = opened(browser, tmp_path, viewport={"width": 390, "height": 844})
    folded = page.locator("#alarms details.excerpts")
    assert not folded.locator("pre").first.is_visible()
    folded.locator("summary").click()
    assert folded.locator("summary").inner_text() == "2 of 12 such documents among 5,000 looked at"
    assert folded.locator("pre").first.is_visible()
    assert folded.locator("pre").first.inner_text() == f"{hostile}\n{{{{ 7 * 7 }}}}"
    assert page.locator("#alarms img, #alarms a, #alarms script").count() == 0
    assert "<b>gone</b>" in page.locator("#alarms").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert wrong == []


def test_it_prints_light_and_whole(browser: Any, whole: Report, tmp_path: Path) -> None:
    page, wrong = opened(browser, whole[0], color_scheme="dark", viewport={"width": 718, "height": 1000})  # A4's width
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(d => d.open)"), "nothing is folded on paper"
    widths = page.evaluate("[...document.querySelectorAll('table')].map(table => table.getBoundingClientRect().right)")
    assert max(widths) <= 718, "paper cannot be scrolled"
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 20_000
    assert wrong == []


def test_a_partial_report_renders(browser: Any, fabricate: Any, make_report: Any) -> None:
    folder, _ = make_report(fabricate(skip=lambda step: step.kind != "generate"))
    page, wrong = opened(browser, folder, viewport={"width": 360, "height": 740})
    assert page.locator(".partial").is_visible()
    assert page.locator("svg.plot").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert wrong == []


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two rgb() colours."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
        red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
