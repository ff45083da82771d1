"""Threads that share a virtual clock: one runs at a time, and when it waits, the one that is due first goes on.

Their interleaving is the same in every run, however busy the machine is. They must wait only by the clock, never for
each other in other ways.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable

from support.grid import VirtualClock

STUCK_S = 60.0
"""Seconds of real time after which a thread must be waiting for something other than the clock."""


class InTurn:
    """See the module. Replaces the clock's `wait_until`."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._pass_time = clock.wait_until
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int]] = []
        self._running: int | None = None
        self._errors: list[BaseException] = []
        self._me = threading.local()

    def run(self, *works: Callable[[], None]) -> None:
        """Run all of these concurrently, beginning with the first. Raises the first error of any of them."""
        self._clock.wait_until = self._wait_until  # type: ignore[method-assign]
        try:
            threads = [
                threading.Thread(target=self._live, args=(number, work), daemon=True)
                for number, work in enumerate(works)
            ]
            with self._changed:
                for thread in threads:
                    thread.start()
                self._changed.wait_for(lambda: len(self._waiting) == len(threads), STUCK_S)
                self._next()
            for thread in threads:
                thread.join(STUCK_S)
                assert not thread.is_alive(), "a thread waits for something other than the clock"
        finally:
            self._clock.wait_until = self._pass_time  # type: ignore[method-assign]
        if self._errors:
            raise self._errors[0]

    def _live(self, number: int, work: Callable[[], None]) -> None:
        self._me.number = number
        try:
            self._take_turn(self._clock(), begins=True)
            work()
        except BaseException as error:  # noqa: BLE001 (it is raised again by `run`)
            self._errors.append(error)
        finally:
            with self._changed:
                self._next()

    def _wait_until(self, when: float) -> None:
        self._take_turn(max(when, self._clock()))

    def _take_turn(self, when: float, *, begins: bool = False) -> None:
        me = self._me.number
        with self._changed:
            heapq.heappush(self._waiting, (when, me))
            if begins:
                self._changed.notify_all()
            else:
                self._next()
            assert self._changed.wait_for(lambda: self._running == me, STUCK_S), "nothing lets this thread go on"

    def _next(self) -> None:
        """Let the thread that is due first go on. The condition must be held."""
        self._running = None
        if self._waiting:
            when, self._running = heapq.heappop(self._waiting)
            self._pass_time(when)
        self._changed.notify_all()
