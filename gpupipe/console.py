"""What a person sees: progress on stderr, tables on stdout, colour only on a terminal.

The progress protocol, which every long function takes as ``progress=None``::

    with progress.stage("scan", total=rows, unit="rows") as stage:
        for batch in batches:
            stage.advance(len(batch))

``progress=None`` means no bars; `quiet(progress)` turns it into an object that does nothing,
so that the work itself needs no condition.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Stage(Protocol):
    """A piece of work under way."""

    def advance(self, n: int = 1) -> None:
        """``n`` more units are done."""
        ...


class Progress(Protocol):
    """Something that shows how far the work is."""

    def stage(
        self, name: str, total: int | None = None, unit: str = ""
    ) -> AbstractContextManager[Stage]:
        """A stage of ``total`` units (None: unknown); it is done when the context ends."""
        ...

    def say(self, text: str) -> None:
        """A line that stays, beside what goes by."""
        ...


class _Nothing:
    def advance(self, n: int = 1) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Stage]:
        yield self


def quiet(progress: Progress | None) -> Progress:
    """``progress``, or one that shows nothing."""
    return progress if progress is not None else _Nothing()


@contextmanager
def reading(progress: Progress | None) -> Iterator[Callable[[int, int, str], None]]:
    """`data.ingest`'s callback (done, total, what is being done) as one stage after another."""
    shown = quiet(progress)
    with ExitStack() as stack:
        what, done, stage = "", 0, None

        def report(now: int, total: int, text: str) -> None:
            nonlocal what, done, stage
            if text != what or stage is None:
                stack.close()
                unit = "bytes" if text in ("fingerprinting", "reading") else "rows"
                what, done = text, 0
                stage = stack.enter_context(shown.stage(text, total or None, unit))
            stage.advance(max(0, now - done))
            done = now

        yield report


def bars() -> Progress:
    """Progress bars on stderr; nothing where stderr is not a terminal."""
    dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
    return _Bars() if sys.stderr.isatty() and not dumb else _Nothing()


class _Bars:
    """One live display over all stages; a stage appears once it has taken a second."""

    def __init__(self) -> None:
        self._display: RichProgress | None = None
        self._open = 0

    def say(self, text: str) -> None:
        stderr().print(text, style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Stage]:
        if self._display is None:
            self._display = _display()
        display = self._display
        if self._open == 0:
            display.start()
        self._open += 1
        task = display.add_task(name, total=total, unit=unit)
        try:
            yield _Bar(display, task)
            done = display.tasks[display.task_ids.index(task)].completed
            display.update(task, total=total if total is not None else done, completed=done)
        finally:
            display.stop_task(task)
            self._open -= 1
            if self._open == 0:
                display.stop()
                self._display = None


class _Bar:
    def __init__(self, display: RichProgress, task: TaskID) -> None:
        self._display, self._task = display, task

    def advance(self, n: int = 1) -> None:
        self._display.advance(self._task, n)


def _display() -> RichProgress:
    from rich import progress as rich
    from rich.text import Text

    class Amount(rich.ProgressColumn):
        """Done, of how many, and how fast: ``1.2M/2.0M rows  310k/s``."""

        def render(self, task: rich.Task) -> Text:
            of = f"/{short(task.total)}" if task.total is not None else ""
            speed = task.finished_speed or task.speed
            rate = f"  {short(speed)}/s" if speed else ""
            return Text(f"{short(task.completed)}{of} {task.fields['unit']}{rate}")

    class Display(rich.Progress):
        """Only the stages of more than a second."""

        def get_renderables(self) -> Iterator[Any]:
            yield self.make_tasks_table([t for t in self.tasks if (t.elapsed or 0) > 1.0])

    return Display(
        rich.TextColumn("{task.description}"), rich.BarColumn(bar_width=24), Amount(),
        rich.TimeElapsedColumn(), rich.TextColumn("left"), rich.TimeRemainingColumn(),
        console=stderr(), refresh_per_second=5,
    )


def stdout() -> Console:
    """The console for answers; wide where it is a pipe, so that nothing is cut."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 1000
    return Console(width=width, highlight=False, soft_wrap=not sys.stdout.isatty())


def stderr() -> Console:
    """The console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(text: str = "", style: str | None = None) -> None:
    """One line of the answer, as it is: brackets in it are no markup."""
    stdout().print(text, style=style, markup=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """A small table on stdout; columns whose cells are all numbers are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=Text(title) if title else None, box=box.SIMPLE_HEAD, title_justify="left",
        pad_edge=False,
    )
    for i, name in enumerate(columns):
        cells = [row[i] for row in rows]
        numeric = bool(cells) and all(c is None or isinstance(c, (int, float)) for c in cells)
        drawn.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_cell(c)) for c in row))
    stdout().print(drawn)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def short(number: float | None) -> str:
    """A count in four characters or so: 950, 12.3k, 1.2M, 4G."""
    if number is None:
        return "?"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
