"""A background thread: it waits for its time or until it is woken, takes a step, and so on, until it is closed.

Knows nothing of what a step does. A step that fails unexpectedly is logged, and the next one follows nevertheless,
after a pause; one that raises `StoppedError` was asked to stop, and is the last.

Threads: everything but `was_woken` may be used from any thread; but a step must not close its own worker. Neither a
step nor `pause_s` is called with a lock held.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

from dfsfuse.errors import StoppedError

STOP_S: Final = 1.0
RETRY_S: Final = 1.0
"""The pause after an unexpected failure: it may happen each time."""

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
        ends_with_step: bool = False,
    ) -> None:
        """`pause_s`: how long it waits for the next step unless it is woken (None: until it is). `stop_s`: how long
        `close` waits for a step in progress (None: until it is over). `ends_with_step`: whether it takes one more step
        when it is closed."""
        self._pause_s = pause_s
        self._what = what
        self._stop_s = stop_s
        self._ends_with_step = ends_with_step
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._life = threading.Lock()
        """Held while it is started, or told to stop."""
        self._step: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self.is_started = False
        """Whether it was ever started."""
        self.was_woken = False
        """Whether the current step was asked for by `wake`, and is not due by itself. For the step."""

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
        """Start, unless it was started or closed before; the first step is a pause away."""
        with self._life:
            if not (self.is_started or self.is_stopping()):
                self._step = step
                self._thread.start()
                self.is_started = True

    def close(self) -> None:
        """Stop it; may be called even if it was never started. A hanging request is left to its own deadline."""
        with self._life:
            self._stop.set()
        self._wake.set()
        if self.is_started:
            self._thread.join(self._stop_s)

    def _loop(self) -> None:
        with contextlib.suppress(StoppedError):
            while not self._stop.is_set():
                self._guard(self._turn)
            if self._ends_with_step:
                self._guard(self._step)

    def _turn(self) -> None:
        self.was_woken = self._wake.wait(self._pause_s() if callable(self._pause_s) else self._pause_s)
        self._wake.clear()
        if not self._stop.is_set():
            self._step()

    def _guard(self, work: Callable[[], object]) -> None:
        try:
            work()
        except StoppedError:
            raise
        except Exception:
            log.exception("%s failed unexpectedly; it goes on", self._what)
            self._stop.wait(RETRY_S)
