"""A page of verdicts and tables: one self-contained HTML file, in the report's style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.evaluate.report import environment
from gpupipe.evaluate.text import CONTROL


@dataclass(frozen=True)
class Mark:
    """A verdict in a word or two: ``good`` is True, False, or None for neither."""

    text: str
    good: bool | None = None


@dataclass(frozen=True)
class Card:
    """A promise with its verdict: a short title, the promise, what was found."""

    title: str
    mark: Mark
    promise: str
    found: str


@dataclass(frozen=True)
class Table:
    """Rows of cells: text, numbers, `Mark`, or None. ``folded`` ones open at a click.

    The title may be empty where the section's says enough.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    folded: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone, and are set to the right."""
        return [any(isinstance(row[i], (int, float)) for row in self.rows)
                and all(row[i] is None or isinstance(row[i], (int, float)) for row in self.rows)
                for i in range(len(self.columns))]


@dataclass(frozen=True)
class Section:
    """Tables under a heading; ``anchor`` is its place in the page's navigation."""

    anchor: str
    title: str
    tables: Sequence[Table]
    sub: str = ""


@dataclass(frozen=True)
class Page:
    """A page. ``kind`` is what it is, ``strip`` a few facts, each a name and a text."""

    kind: str
    name: str
    created: str
    lede: str
    verdict: Mark
    cards: Sequence[Card]
    strip: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def render_page(page: Page) -> str:
    """The HTML. Text may be anything: it is escaped, isolated and cut to fit."""
    html = environment().get_template("page.html").render(p=page, title=f"{page.name} {page.kind}")
    return CONTROL.sub("�", html).encode("utf-8", "replace").decode("utf-8")
