"""A progress bar on standard error, for long operations.

It is shown only if standard error is a terminal, and only if it is worth it: for more than 8 MiB, or after more than a
second. Knows nothing about files and servers, only a name, a total and the bytes done. The bar is removed when it is
finished, so the terminal's history shows only results. rich draws it on its own thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from dfsfuse.cli.output import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WORTH_BYTES = 8 * 1024 * 1024
WORTH_S = 1.0


class Bar:
    """The progress of one command, over one or many files. A context manager; `start` names the next item."""

    def __init__(
        self,
        *,
        terminal: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted = sys.stderr.isatty() if terminal is None else terminal()
        self._clock = clock
        self._began = clock()
        self._drawn: tuple[Progress, TaskID] | None = None
        self._name = ""
        self._total: int | None = None
        self._done = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn is not None:
            self._drawn[0].stop()
            self._drawn = None

    @property
    def visible(self) -> bool:
        """Whether it is on the screen."""
        return self._drawn is not None

    def start(self, name: bytes, total: int | None) -> None:
        """Begin the next file; `total` is its size in bytes, if known."""
        self._name, self._total, self._done = printable(name), total, 0
        if self._drawn is not None:
            progress, task = self._drawn
            progress.reset(task, total=total, description=self._label())
        self._draw_if_worth()

    def advance(self, size: int) -> None:
        """Record that `size` more bytes of the file are done."""
        self._done += size
        self._draw_if_worth()
        if self._drawn is not None:
            progress, task = self._drawn
            progress.update(task, completed=self._done)

    def _draw_if_worth(self) -> None:
        if not self._wanted or self._drawn is not None:
            return
        large = max(self._total or 0, self._done) > WORTH_BYTES
        if not large and self._clock() - self._began <= WORTH_S:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        progress.start()
        task = progress.add_task(self._label(), total=self._total, completed=self._done)
        self._drawn = (progress, task)

    def _label(self) -> str:
        return self._name if len(self._name) <= 30 else "..." + self._name[-27:]
