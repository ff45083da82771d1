"""A thread that does a mount's upkeep: it waits, takes a step, and so on, until the mount ends.

Knows nothing of what a step does. A step that fails in a way that nobody foresaw is logged, and the next one comes all
the same; one that raises `StoppedError` has been asked to stop, and was the last.

Threads: `wait` is for the step, in the thread of its own; all else is for who makes and ends the mount.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from dfsfuse.errors import StoppedError

STOP_S: Final = 1.0

log = logging.getLogger(__name__)


class Repeating:
    """See the module. `what` is what the steps are called in the log."""

    def __init__(self, name: str, every_s: float, what: str) -> None:
        self._every_s = every_s
        self._what = what
        self._stop = threading.Event()
        self._step: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the end. Is it to stop?"""
        return self._stop.wait(seconds)

    def is_alive(self) -> bool:
        """Does the thread run?"""
        return self._thread.is_alive()

    def start(self, step: Callable[[], object]) -> None:
        """Begin; the first step is `every_s` away."""
        self._step = step
        self._thread.start()

    def close(self) -> None:
        """End, within a second. A request that hangs is left to its own deadline."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    def _loop(self) -> None:
        while not self.wait(self._every_s):
            try:
                self._step()
            except StoppedError:
                return
            except Exception:
                log.exception("%s failed unexpectedly; it goes on", self._what)
