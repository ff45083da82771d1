"""A thread that works in a mount, one turn after another, until the run is over, and can be paused.

Its subclass decides what it does (`turn`). `lock` is held during everything that others must not see half done.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Final

from .history import History, ViolationError

PAUSE_S: Final = 0.2
"""A pause after a failure."""


class Worker(threading.Thread, ABC):
    """See the module."""

    def __init__(self, name: str, mount_name: str, history: History) -> None:
        super().__init__(name=name, daemon=True)
        self.mount_name = mount_name
        self.lock = threading.Lock()
        self.is_crashed = False
        """Whether the mount was killed since the last barrier."""
        self._history = history
        self._go = threading.Event()
        self._ending = threading.Event()

    @abstractmethod
    def turn(self) -> float:
        """Do one thing, and return for how many seconds to rest. Raises `ViolationError` once that is recorded."""

    def run(self) -> None:
        try:
            while not (self._ending.is_set() or self._history.stopped.is_set()):
                if self._go.wait(PAUSE_S):
                    self._ending.wait(self.turn())
        except ViolationError:
            pass  # it is recorded already
        except BaseException as error:
            self._history.violation(f"{self.name}: the torture itself has a bug: {error!r}")
            raise

    def go(self) -> None:
        """Start, or continue."""
        self._go.set()

    def pause(self) -> None:
        """Pause after the current operation until `go`."""
        self._go.clear()

    def finish(self) -> None:
        """End the thread after the current operation."""
        self._ending.set()
