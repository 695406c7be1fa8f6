"""The chart of ``docs/benchmarks.svg``, drawn by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from .results import Bars, Statement

__all__ = ["draw"]

_WIDTH: Final = 980
_LABEL: Final = 400
_FULL: Final = 360
"""Length of the longest bar."""
_ROW: Final = 24
_COLOURS: Final = {"aim": "#2e7d4f", "must": "#c28a00", "MISSED": "#b3261e"}
_OURS: Final = "#1f5fa8"
_THEIRS: Final = "#9aa5b1"
_INK: Final = "#1c2733"
_FAINT: Final = "#5f6b78"


class _Drawing:
    """Lines of SVG, from the top down."""

    def __init__(self) -> None:
        self.y = 16
        self._parts: list[str] = []

    def text(
        self, x: float, text: str, *, size: int = 13, colour: str = _INK, anchor: str = "start", bold: bool = False
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{self.y + 14}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def bar(self, length: float, colour: str) -> None:
        size = f'width="{max(length, 1):.1f}" height="{_ROW - 9}"'
        self._parts.append(f'<rect x="{_LABEL}" y="{self.y + 3}" {size} rx="2" fill="{colour}"/>')

    def tick(self, x: float, top: float, bottom: float, colour: str, dash: str = "") -> None:
        stroke = f'stroke="{colour}" stroke-width="1.5"' + (f' stroke-dasharray="{dash}"' if dash else "")
        self._parts.append(f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" {stroke}/>')

    def finish(self) -> str:
        height = self.y + 12
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif" role="img">\n'
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(self._parts) + "\n</svg>\n"
        )


def draw(statements: Sequence[Statement], groups: Iterable[Bars]) -> str:
    """Each statement as the share of its limit that it uses, then the figures of each group."""
    drawing = _Drawing()
    _statements(drawing, statements)
    for group in groups:
        _group(drawing, group)
    return drawing.finish()


def _statements(drawing: _Drawing, statements: Sequence[Statement]) -> None:
    used = [_used(statement, statement.value) for statement in statements]
    scale = _FULL / max([1.15, *(min(share, 2.0) for share in used)])
    drawing.text(16, "What is used of each limit", size=15, bold=True)
    drawing.text(_LABEL + scale, "limit", size=11, colour=_FAINT, anchor="middle")
    drawing.y += _ROW
    for statement, share in zip(statements, used, strict=True):
        drawing.text(_LABEL - 12, _short(statement.target.what), anchor="end", size=12)
        drawing.bar(min(share, 2.0) * scale, _COLOURS[statement.verdict])
        aim = _used(statement, statement.target.aim) * scale
        drawing.tick(_LABEL + aim, drawing.y + 1, drawing.y + _ROW - 4, _INK, "2 2")
        drawing.tick(_LABEL + scale, drawing.y, drawing.y + _ROW, _FAINT)
        target = statement.target
        limit = f"{'≥' if target.more_is_better else '≤'} {target.must:g}"
        drawing.text(_LABEL + _FULL + 12, f"{target.show(statement.value)}  ({limit})", size=12)
        drawing.y += _ROW
    drawing.text(_LABEL, "dashed: the aim; a shorter bar is better", size=11, colour=_FAINT)
    drawing.y += 2 * _ROW


def _used(statement: Statement, value: float) -> float:
    """The part of its limit that ``value`` takes: above 1 the limit is missed."""
    must = statement.target.must
    share = (must / value if value else 2.0) if statement.target.more_is_better else value / must
    return max(share, 0.0)


def _group(drawing: _Drawing, group: Bars) -> None:
    drawing.text(16, group.title, size=15, bold=True)
    drawing.text(_LABEL, group.better, size=11, colour=_FAINT)
    drawing.y += _ROW
    longest = max(value for _, value in group.values)
    for name, value in group.values:
        drawing.text(_LABEL - 12, name, anchor="end", size=12)
        length = value / longest * _FULL
        drawing.bar(length, _OURS if name.startswith("fastn-p2p") else _THEIRS)
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
        drawing.text(_LABEL + length + 8, f"{shown} {group.unit}", size=12)
        drawing.y += _ROW
    drawing.y += _ROW // 2


def _short(text: str) -> str:
    return text if len(text) <= 64 else text[:63].rstrip() + "…"
