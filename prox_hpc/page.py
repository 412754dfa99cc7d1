"""What all our HTML pages share: one file with everything in it, one set of colours, everything escaped.

A page is a template `NAME.html.jinja` with `NAME.css` and `NAME.js` beside it; `page.css` here holds the colours, light
and dark.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

COLOURS = Path(__file__).with_suffix(".css")


def render(template: Path, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """The page's text. The template also gets `style` and `script`; what it is given else is escaped."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    name = template.name.removesuffix(".html.jinja")
    style, script = template.with_name(f"{name}.css"), template.with_name(f"{name}.js")
    return environment.get_template(template.name).render(
        **values, style=Markup(COLOURS.read_text() + style.read_text()), script=Markup(script.read_text())
    )
