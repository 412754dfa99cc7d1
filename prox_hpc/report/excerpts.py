"""The documents behind an alarm: a few short excerpts, so that the page can be judged where the store is out of reach.

Some thousand documents, spread over the corpus, are looked at, and the worst of them are shown. What is shown is
bounded, and free of characters that nobody sees (`prox_hpc.characters`); escaping it is the page's task.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prox_hpc.characters import printable
from prox_hpc.corpus.read import Block, Document, Source
from prox_hpc.corpus.write import block_path
from prox_hpc.errors import UserError
from prox_hpc.programs import parse, removed_by_chunks, removed_lines
from prox_hpc.recorded import Recorded, open_recorded
from prox_hpc.report.alarms import FAILED
from prox_hpc.report.collect import Study

SHOWN = 10
"""Documents an alarm shows."""
BLOCKS, LOOKED_AT = 20, 5000
"""Blocks, and documents in all of them together, that are looked at: seconds, however large the corpus is."""
LINES, WIDTH, NAME = 6, 120, 160
"""Lines of a part of an excerpt, characters of a line, and characters of an id, a URL or a reason."""

Row = Mapping[str, Any]
"""A document's row of the programs file."""
Excerpt = dict[str, Any]
"""{document, url, said, parts: [{label, text}]}: what is wrong with a document, and the lines that show it."""
Found = tuple[str, Any, Callable[[], Excerpt]]
"""Its kind, how bad it is (the worst being the greatest), and how it is shown."""
Told = tuple[list[Excerpt], int, int]
"""Excerpts, documents of that kind, documents looked at."""


@dataclass
class Worst:
    """The worst of what is added, `SHOWN` of each kind at most; those added first where they are alike."""

    matched: int = 0
    _kept: dict[str, list[tuple[Any, int, Callable[[], Excerpt]]]] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        kind, badness, show = found
        self.matched += 1
        kept, entry = self._kept.setdefault(kind, []), (badness, -self.matched, show)
        if len(kept) < SHOWN:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)

    def excerpts(self) -> list[Excerpt]:
        """`SHOWN` in all, as many of each kind as can be; by kind, worst first."""
        ranked = [
            (rank, number, show)
            for number, kept in enumerate(self._kept.values())
            for rank, (_, _, show) in enumerate(sorted(kept, key=lambda entry: entry[:2], reverse=True))
        ]
        chosen = sorted(ranked, key=lambda one: one[:2])[:SHOWN]
        return [show() for _, _, show in sorted(chosen, key=lambda one: (one[1], one[0]))]


def with_excerpts(study: Study, alarms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The alarms, those about documents with `documents`: {excerpts, matched, looked_at, note}.

    matched: documents of that kind among the `looked_at`. note: why there are none to show, where they cannot be read.
    """
    told: set[tuple[str, str | None]] = set()
    answer = []
    for alarm in alarms:
        kind = alarm["name"], alarm.get("arm")
        if alarm["name"] in (*ROWS, "quarantined", "score_drop") and kind not in told:
            told.add(kind)  # an arm may be worse than several others; its documents are the same
            alarm = alarm | {"documents": _documents(study, *kind)}
        answer.append(alarm)
    return answer


def _documents(study: Study, name: str, arm: str | None) -> dict[str, Any]:
    folder, note = study.artifact("refine"), ""
    try:
        if folder is None:
            raise UserError("the programs are not published")
        told = _look(study, open_recorded(folder), name, arm)
    # The report is for studies in which something is amiss, too: what cannot be read is told in the place of it.
    except (UserError, RuntimeError, OSError, pa.ArrowException) as error:
        told, note = ([], 0, 0), f"The documents cannot be shown: {error}"
    return {"excerpts": told[0], "matched": told[1], "looked_at": told[2], "note": note}


def _look(study: Study, recorded: Recorded, name: str, arm: str | None) -> Told:
    if name in ROWS:
        return _of_rows(recorded, ROWS[name])
    return _quarantined(recorded) if arm is None else _of_arm(study, recorded, arm)


def spread(source: Source) -> Iterator[tuple[Block, int]]:
    """(block, documents to read of it): all blocks of a small corpus, else `BLOCKS` at equal distances."""
    blocks = source.blocks
    chosen = [blocks[n * len(blocks) // min(BLOCKS, len(blocks))] for n in range(min(BLOCKS, len(blocks)))]
    for block in chosen:
        yield block, LOOKED_AT // len(chosen)


def _of_rows(recorded: Recorded, judge: Callable[[Document, Row], Found | None]) -> Told:
    worst, looked_at = Worst(), 0
    for block, number in spread(recorded.source):
        for document, row in islice(recorded.read(block), number):
            looked_at += 1
            if found := judge(document, row):
                worst.add(found)
    return worst.excerpts(), worst.matched, looked_at


def _failed_program(document: Document, row: Row) -> Found | None:
    """The first program of a document that was lost in whole or in part."""
    for number, chunk in enumerate(row["chunks"]):
        if chunk["status"] in FAILED:
            first, lines = chunk["first_line"], chunk["line_count"]
            said = f"chunk {number}, lines {first} to {first + lines - 1}: {chunk['status']}"
            said += f" ({chunk['reason']})" if chunk["reason"] else ""
            text = _lines(document)[first : first + lines]
            parts = [("program", (chunk["program"] or "").split("\n")), ("its lines", text)]
            return chunk["status"], 0, partial(excerpt, document, said, parts)
    return None


def _misjudged(document: Document, row: Row) -> Found | None:
    """A document kept or dropped against gold; the surer the refiner was, the worse."""
    if document.gold_drop is None or row["doc_program"] is None:
        return None
    kept, score = row["doc_program"] == "keep_doc()", row["doc_score"]
    if kept != document.gold_drop:
        return None
    kind = "junk, but kept" if kept else "good, but dropped"
    return (
        kind,
        abs(score),
        partial(excerpt, document, f"{kind} (score {score:+.2f})", [("first lines", _lines(document))]),
    )


def _badly_cleaned(document: Document, row: Row) -> Found | None:
    """A page of which other lines were removed than gold removes; the lower its own F1, the worse."""
    if document.gold_drop or document.gold_program is None or not row["chunks"]:
        return None
    lines = _lines(document)
    removed, gold = removed_by_chunks(row["chunks"]), removed_lines(parse(document.gold_program, "chunk"), len(lines))
    wrong = len(removed ^ gold)
    if not wrong:
        return None
    f1 = 2 * len(removed & gold) / (len(removed) + len(gold))
    said = f"F1 {f1:.2f}: {len(gold - removed)} lines missed, {len(removed - gold)} wrongly removed"
    parts = [
        (label, [f"{number}: {lines[number]}" for number in sorted(numbers)])
        for label, numbers in (("missed", gold - removed), ("wrongly removed", removed - gold))
    ]
    return "lines", (-f1, wrong), partial(excerpt, document, said, parts)


ROWS = {"failed_programs": _failed_program, "doc_f1": _misjudged, "line_f1": _badly_cleaned}
"""Alarm -> what a document and its programs have to do with it."""


def _quarantined(recorded: Recorded) -> Told:
    """Of all of the corpus, since they are few: files without any are told by their statistics."""
    found: list[Excerpt] = []
    matched = looked_at = 0
    for block in recorded.source.blocks:
        reasons = _reasons(recorded.path(block))
        looked_at += len(reasons)
        wanted = [number for number, reason in enumerate(reasons) if reason is not None]
        matched += len(wanted)
        wanted = wanted[: SHOWN - len(found)]
        for number, document in enumerate(islice(recorded.source.read(block), wanted[-1] + 1 if wanted else 0)):
            if number in wanted:
                found.append(excerpt(document, str(reasons[number]), [("first lines", _lines(document))]))
    return found, matched, looked_at


def _reasons(path: Path) -> Sequence[str | None]:
    """Per document of a programs file why it was quarantined, None as a rule."""
    with pq.ParquetFile(path) as file:
        about = file.metadata
        place = next(n for n in range(about.num_columns) if about.schema.column(n).path == "quarantined")
        groups = [about.row_group(n).column(place).statistics for n in range(about.num_row_groups)]
        if all(group is not None and not group.num_values for group in groups):
            return [None] * about.num_rows
        reasons: list[str | None] = file.read(columns=["quarantined"])["quarantined"].to_pylist()
        return reasons


def _of_arm(study: Study, recorded: Recorded, arm: str) -> Told:
    """What an arm dropped, and what it cut most of; the more characters, the worse."""
    folder = study.artifact(f"arm/{arm}")
    if folder is None:
        raise UserError(f"the documents of {arm} are not published")
    worst, looked_at = Worst(), 0
    for block, number in spread(recorded.source):
        kept = _texts(block_path(folder, block.index))
        for document in islice(recorded.source.read(block), number):
            looked_at += 1
            if found := _cost(document, kept.get(document.id)):
                worst.add(found)
    return worst.excerpts(), worst.matched, looked_at


def _cost(document: Document, after: str | None) -> Found | None:
    """What a document lost; after: its text in the arm, None where it was dropped."""
    before, lines = len(document.text), _lines(document)
    if after is None:
        said = f"dropped ({before:,} characters)"
        return "dropped", before, partial(excerpt, document, said, [("first lines", lines)])
    if document.text == after:
        return None
    lost, gone = before - len(after), Counter(lines) - Counter(after.split("\n"))
    parts = [("lines removed or changed", [line for line in lines if gone[line]])]
    return "edited", lost, partial(excerpt, document, f"{lost:,} of {before:,} characters removed", parts)


def _texts(path: Path) -> dict[str, str]:
    """Id -> text of the documents of a block of an artifact."""
    table = pq.read_table(path, columns=["id", "text"])
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))


def _lines(document: Document) -> list[str]:
    return document.text.split("\n")


def excerpt(document: Document, said: str, parts: Sequence[tuple[str, Sequence[str]]]) -> Excerpt:
    """What the page shows of a document; parts: label and lines, those without lines are left out."""
    url = document.metadata.get("url")
    return {
        "document": clip(document.id, NAME),
        "url": clip(str(url), NAME) if url else None,
        "said": clip(said, NAME),
        "parts": [{"label": label, "text": _bounded(lines)} for label, lines in parts if any(lines)],
    }


def _bounded(lines: Sequence[str]) -> str:
    """The first lines that hold anything, each cut, and how many more there are."""
    filled = [line for line in lines if line.strip()]
    more = len(filled) - LINES
    return "\n".join(
        [*(clip(line, WIDTH) for line in filled[:LINES]), *([f"… {more:,} more lines"] if more > 0 else [])]
    )


def clip(text: str, length: int) -> str:
    """At most `length` characters of a text, unseen ones as `<U+202E>`; cut ends are marked."""
    shown = printable(text[:length])
    return shown[:length] + ("…" if max(len(text), len(shown)) > length else "")
