"""Characters that a person would not see, or that would act on what shows them.

Pages hold NUL bytes, terminal escapes, marks that turn the writing direction around, spaces of no width. An inspection
must show them as what they are and must not obey them, neither in a terminal nor in a browser.
"""

import re
from collections.abc import Iterator
from typing import Final

_Ranges = tuple[tuple[int, int], ...]

UNSEEN: Final[_Ranges] = (
    *((0x00, 0x08), (0x0A, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x61C, 0x61C), (0x180E, 0x180E), (0x200B, 0x200B)),
    *((0x200E, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0xD800, 0xDFFF), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB)),
    (0xE0000, 0xE007F),
)
"""Code points shown by number: controls but the tab, marks of direction, invisible ones, lone surrogates. The joiners
of no width (U+200C, U+200D) are not among them: Persian, Hindi and emoji are written with them."""

SPACES: Final[_Ranges] = (
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
)
"""Spaces but the ordinary one: shown by number where the point is what replaced what."""


def _pattern(ranges: _Ranges) -> re.Pattern[str]:
    return re.compile("([" + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges) + "])")


_PATTERNS: Final = {False: _pattern(UNSEEN), True: _pattern(UNSEEN + SPACES)}


def pieces(text: str, *, spaces: bool = False) -> Iterator[tuple[str, bool]]:
    """`text` cut up: stretches to show as they are (False), and code points as `U+202E` to show as marks (True).

    spaces: also mark unusual spaces.
    """
    for place, piece in enumerate(_PATTERNS[spaces].split(text)):
        if place % 2:
            yield f"U+{ord(piece):04X}", True
        elif piece:
            yield piece, False


def printable(text: str) -> str:
    """`text` with every unseen character as `<U+202E>`: safe to print anywhere, on one line."""
    return "".join(f"<{piece}>" if marked else piece for piece, marked in pieces(text))
