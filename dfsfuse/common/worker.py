"""A background thread: it waits for its time or until it is woken, takes a step, and so on, until it is closed.

Knows nothing of what a step does. A step that fails unexpectedly is logged, and the next one follows nevertheless; one
that raises `StoppedError` was asked to stop, and is the last.

Threads: `wake`, `wait` and `is_stopping` may be called from any thread, including within a step; the owner starts and
closes it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from dfsfuse.errors import StoppedError

STOP_S: Final = 1.0

log = logging.getLogger(__name__)


class Worker:
    """See the module. `what` names the steps in the log."""

    def __init__(
        self,
        name: str,
        pause_s: float | Callable[[], float | None] | None,
        what: str,
        *,
        stop_s: float | None = STOP_S,
    ) -> None:
        """`pause_s`: how long it waits for the next step unless it is woken (None: until it is). `stop_s`: how long
        `close` waits for a step in progress (None: until it is over)."""
        self._pause_s = pause_s
        self._what = what
        self._stop_s = stop_s
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._step: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def wait(self, seconds: float) -> bool:
        """Wait this long, or until it is to stop. Returns whether it is."""
        return self._stop.wait(seconds)

    def is_stopping(self) -> bool:
        """Return whether it is to stop."""
        return self._stop.is_set()

    def is_alive(self) -> bool:
        """Return whether the thread is running."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Take the next step now. Never waits."""
        self._wake.set()

    def start(self, step: Callable[[], object]) -> None:
        """Start; the first step is a pause away."""
        self._step = step
        self._thread.start()

    def close(self) -> None:
        """Stop it; may be called even if it was never started. A hanging request is left to its own deadline."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(self._stop_s)

    def _loop(self) -> None:
        while True:
            self._wake.wait(self._pause_s() if callable(self._pause_s) else self._pause_s)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self._step()
            except StoppedError:
                return
            except Exception:
                log.exception("%s failed unexpectedly; it goes on", self._what)
