"""Documents in a terminal: removed lines struck through in red, old beside new text, each program before its lines.

Without colours (piped, NO_COLOR) the marks say it: `-` before a removed line, `~` before one with replacements, which
stand as `[-old-]{+new+}`. A pipe also gets every line unwrapped.
"""

from typing import Final

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from prox_hpc.characters import pieces
from prox_hpc.inspection.view import ChunkView, DocumentView, Fold, LineView, OperationView, Part

LONGEST: Final = 400
"""Characters shown of a stretch without a change, half from each end; a page may be one line of megabytes."""
PROGRAM_LINES: Final = 12
"""Lines shown of a program's own text."""

REMOVED: Final = "red strike"
WRITTEN: Final = "green"
COLOURS: Final = {"untouched": "cyan", "edited": "yellow", "dropped": "red"}
MARKS: Final = {"applied": ("✓", "green"), "refused": ("✗", "yellow"), "no_change": ("·", "dim")}


def show(console: Console, view: DocumentView) -> None:
    """Print one document."""
    signs = not console.is_terminal or console.no_color
    console.print(Rule(_title(view), align="left", style=COLOURS[view.outcome]))
    for line in _about(view):
        console.print(line, soft_wrap=True)
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for cells in _cells(view, signs):
        if console.is_terminal:
            grid.add_row(*cells)
        else:
            console.print(Text(f"{cells[0]:>5} {cells[1]} ").append(cells[2]), soft_wrap=True)
    if console.is_terminal:
        console.print(grid)


def _title(view: DocumentView) -> Text:
    title = Text().append(f"{view.outcome} ", f"bold {COLOURS[view.outcome]}")
    return _append(title, _shortened(view.id), "bold default")


def _about(view: DocumentView) -> list[Text]:
    """What stands under the title."""
    about = []
    if view.url is not None:
        about.append(_append(Text(), _shortened(view.url), "dim"))
    about.append(Text(" · ".join(facts(view)), style="dim"))
    if view.reason is not None:
        about.append(Text(f"{view.outcome}: {view.reason}", style=COLOURS[view.outcome]))
    return about


def facts(view: DocumentView) -> list[str]:
    """The document's figures, as short phrases."""
    before, after = view.words
    removed = f"{view.removed_lines:,} removed of " if view.removed_lines else ""
    return [
        *([] if view.score is None else [f"score {view.score:+.2f}"]),
        f"{removed}{len(view.lines):,} lines",
        *([f"{view.replaced:,} replaced"] if view.replaced else []),
        f"{before:,} words" if before == after else f"{before:,} → {after:,} words",
    ]


def _cells(view: DocumentView, signs: bool) -> list[tuple[str, str, Text]]:
    """Line number, mark and text, from top to bottom."""
    cells: list[tuple[str, str, Text]] = []
    for row in view.rows():
        if isinstance(row, ChunkView):
            cells += [("", " ", text) for text in _program(row)]
        elif isinstance(row, Fold):
            what = "more" if view.outcome == "dropped" else "unchanged"
            chunks = f", {row.chunks:,} programs that keep all" if row.chunks else ""
            cells.append(("⋮", " ", Text(f"{row.lines:,} {what} lines{chunks}", style="dim italic")))
        else:
            number, line = row
            mark = "-" if line.removed_by is not None else "~" if line.changed else " "
            cells.append((f"{number:03d}", mark, _line(line, signs)))
    return cells


def _line(line: LineView, signs: bool) -> Text:
    text = Text()
    for part in line.parts:
        _part(text, part, REMOVED if line.removed_by is not None else "", signs)
    return text


def _part(text: Text, part: Part, style: str, signs: bool) -> None:
    if isinstance(part, str):
        _append(text, _shortened(part), style)
        return
    for value, style, opening, closing in ((part[0], REMOVED, "[-", "-]"), (part[1], WRITTEN, "{+", "+}")):
        if value:
            text.append(opening if signs else "", style)
            _append(text, _shortened(value), style, spaces=True)
            text.append(closing if signs else "", style)


def _program(chunk: ChunkView) -> list[Text]:
    """The chunk's head, its operations, and the program as written where these do not say it all."""
    last = chunk.first_line + chunk.line_count - 1
    head = Text("").append(f"lines {chunk.first_line:03d}-{last:03d}", "bold blue")
    head.append(f"  {chunk.status}", "dim" if chunk.status in ("ok", "oversized", "no_program") else "yellow")
    head.append(f": {chunk.reason}" if chunk.reason else "", "yellow")
    head.append("" if chunk.executed else ", not executed", "yellow")
    lines = [head, *map(_operation, chunk.operations)]
    if chunk.as_written is not None:
        written = chunk.as_written.split("\n")
        lines += [_append(Text("  | ", "dim"), _shortened(line), "dim") for line in written[:PROGRAM_LINES]]
        if len(written) > PROGRAM_LINES:
            lines.append(Text(f"  | {len(written) - PROGRAM_LINES:,} more lines", style="dim italic"))
    return lines


def _operation(operation: OperationView) -> Text:
    mark, style = MARKS[operation.outcome]
    text = Text("  ").append(mark, style).append(" ")
    _append(text, _shortened(operation.call), "dim" if operation.outcome == "no_change" else "", spaces=True)
    if operation.name == "normalize" and operation.affected > 1:
        text.append(f"  {operation.affected:,} times", "dim")
    return text.append(f"  {operation.outcome}: {operation.reason}" if operation.reason else "", style)


def _shortened(text: str) -> str:
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    return f"{text[: LONGEST // 2]} … {left_out:,} characters … {text[-LONGEST // 2 :]}"


def _append(text: Text, value: str, style: str, *, spaces: bool = False) -> Text:
    """Append `value`, with what would not be seen, or would act on the terminal, as marks."""
    for piece, marked in pieces(value, spaces=spaces):
        text.append(f"<{piece}>" if marked else piece, f"{style} reverse" if marked else style)
    return text
