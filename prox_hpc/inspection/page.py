"""The page: one HTML file with everything in it, for any browser, offline.

Documents travel as JSON in the page, and its script makes text nodes of them, never markup: a page's text is hostile.
"""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from prox_hpc import page
from prox_hpc.characters import SPACES, UNSEEN
from prox_hpc.errors import UserError
from prox_hpc.inspection.select import Selection
from prox_hpc.inspection.view import NO_URL, ChunkView, DocumentView, LineView
from prox_hpc.recorded import Recorded
from prox_hpc.refine.records import Execution

HERE = Path(__file__).parent


def write(path: Path, recorded: Recorded, selection: Selection, chosen: str, drawn: str) -> None:
    """Write the page. chosen: the options that chose, as typed. drawn: how many of how many, in words.

    UserError when the file cannot be written.
    """
    try:
        path.write_bytes(render(recorded, selection, chosen, drawn).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UserError(f"--html {path}: cannot be written ({error.strerror}); give another file") from error


def render(recorded: Recorded, selection: Selection, chosen: str, drawn: str) -> str:
    """The page's text. A lone surrogate in it can only stand in the data, where its JSON escape may replace it."""
    data = {
        "unseen": UNSEEN,
        "spaces": SPACES,
        "noUrl": NO_URL,
        "documents": [to_json(view) for view in selection.views],
    }
    return page.render(
        HERE / "inspection.html.jinja",
        {},
        name=recorded.step.name,
        address=recorded.step.address,
        settings=settings(recorded.execution),
        chosen=chosen,
        drawn=drawn,
        data=in_script(data),
    )


def settings(execution: Execution) -> str:
    """How the programs were executed, in words."""
    checks = execution.checks
    stages = [f"doc stage (keep from score {execution.threshold:g})"] if execution.doc else []
    stages += [f"chunk stage (profile {execution.profile})"] if execution.chunk else []
    return (
        f"{' and '.join(stages)}; an edited document is dropped when {checks.max_removed:.0%} of its words are gone "
        f"or fewer than {checks.min_words} are left"
    )


def in_script(data: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it closes the element or opens a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def to_json(view: DocumentView) -> dict[str, Any]:
    """What the script reads of a document; lines nothing happened to are plain strings, the others objects."""
    return {
        "id": view.id,
        "url": view.url,
        "domain": view.domain,
        "outcome": view.outcome,
        "reason": view.reason,
        "score": None if view.score is None else f"{view.score:+.2f}",
        "words": view.words,
        "removed": view.removed_lines,
        "replaced": view.replaced,
        "chunks": [_chunk(chunk) for chunk in view.chunks],
        "lines": [_line(line) for line in view.lines],
        "folds": [[fold.first, fold.last, fold.chunks] for fold in view.folds],
    }


def _chunk(chunk: ChunkView) -> dict[str, Any]:
    return {
        "at": chunk.at,
        "first": chunk.first_line,
        "count": chunk.line_count,
        "status": chunk.status,
        "reason": chunk.reason,
        "executed": chunk.executed,
        "quiet": chunk.quiet,
        "written": chunk.as_written,
        "operations": [[one.call, one.name, one.outcome, one.reason, one.affected] for one in chunk.operations],
    }


def _line(line: LineView) -> str | dict[str, Any]:
    if line.removed_by is not None:
        return {"text": line.parts[0], "by": line.removed_by}
    if line.changed:
        return {"parts": line.parts}
    return "".join(part for part in line.parts if isinstance(part, str))
