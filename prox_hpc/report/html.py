"""report.html: one self-contained page from report.json's content (inline style and plots, nothing from a network)."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from prox_hpc import page
from prox_hpc.report import figure, headline
from prox_hpc.report.summary import counts, spread

HERE = Path(__file__).parent


def render(report: dict[str, Any]) -> str:
    """The page. Everything but our own SVG is escaped: names and errors come from users and programs."""
    filters = {name: getattr(headline, name) for name in ("flops", "count", "percent", "number", "times", "ends")}
    cost = report["refining_flops"]
    shift = (report["arm"], cost) if report["arm"] and cost else None
    arms = [row["arm"] for row in report["arms"]]
    plots = [Markup(figure.plot(metric, arms, shift)) for metric in report["metrics"] if metric["curves"]]
    drawn = {arm for metric in report["metrics"] for arm in metric["curves"]}
    return page.render(
        HERE / "report.html.jinja",
        {**filters, "spread": spread, "counts": counts},
        **report,
        plots=plots,
        drawn=drawn,
        shifted=shift is not None and shift[0] in drawn,
        method=next((m for metric in report["metrics"] for m in metric["matched"].values()), None),
        swatch=lambda number: Markup(figure.swatch(number)),
        scores_by={(row["arm"], row["task"]): row for row in report["scores"]},
    )
