"""A thread that does one thing after the other in a mount until the run is over, and stands still when it is told to.

What it does is its subclass's business (`turn`). `lock` is held during each thing that others must not see half done.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Final

from .history import History, ViolationError

PAUSE_S: Final = 0.2
"""A rest after something that failed."""


class Worker(threading.Thread, ABC):
    """See the module."""

    def __init__(self, name: str, mount_name: str, history: History) -> None:
        super().__init__(name=name, daemon=True)
        self.mount_name = mount_name
        self.lock = threading.Lock()
        self.is_crashed = False
        """The mount was killed since the last barrier."""
        self._history = history
        self._go = threading.Event()
        self._ending = threading.Event()

    @abstractmethod
    def turn(self) -> float:
        """Do one thing. How long to rest after it, in seconds. Raises `ViolationError`, once it is written down."""

    def run(self) -> None:
        try:
            while not (self._ending.is_set() or self._history.stopped.is_set()):
                if self._go.wait(PAUSE_S):
                    self._ending.wait(self.turn())
        except ViolationError:
            pass  # it is written down
        except BaseException as error:
            self._history.violation(f"{self.name}: the torture itself is wrong: {error!r}")
            raise

    def go(self) -> None:
        """Begin, or go on."""
        self._go.set()

    def pause(self) -> None:
        """Do nothing more after the present operation until `go`."""
        self._go.clear()

    def finish(self) -> None:
        """End the thread after the present operation."""
        self._ending.set()
