"""Which files have unsaved data, and since when: reported by writers and savers, and used by the thread that saves in
the background.

Under load data would come faster than it is saved. So when something of many files has been unsaved for half as long
again as it should, a thread that writes, creates or closes a file waits until that is saved (`slow_down`): the age is a
promise that holds for all of many thousands of files. If only a few are late, as one long file is that goes over a slow
line, its writers wait, and others do not. What cannot be saved is not waited for: it is reported as an error.

Threads: any; and the one that saves (`thread`), whose steps belong to `BackgroundSaver`. `_lock` guards everything, is
acquired after `OpenFile.lock`, and is held only briefly; slowed writers wait for it as `_eased`. The thread is woken
only for what is due before it wakes by itself: a program that makes one file after the other wakes it once in
`save_after_s`, and not with each file.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection
from typing import Final

from dfsfuse.common.worker import Worker
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.write.schedule import Schedule

SAVE_AFTER_S: Final = 1.0
SLOW_MAX_S: Final = 10.0
"""No operation is delayed longer than this, whatever happens."""


class Backlog:
    """See the module."""

    def __init__(self, monotonic: Callable[[], float], save_after_s: float = SAVE_AFTER_S) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._eased = threading.Condition(self._lock)
        """Signals that something was saved, or cannot be: slowed writers may go on."""
        self._schedule = Schedule(save_after_s)
        self._sleeps_until_s = -math.inf
        """When the thread wakes by itself. While it is awake it checks the schedule before it sleeps."""
        self._worked_s = -math.inf
        """When the thread last had something to save. Used by it only."""
        self.thread = Worker("vfs-saving", self._pause_s, "saving in the background", stop_s=None)
        """Saves what is due. Until it is started no writer is slowed down."""
        self._is_submitted = False
        """Whether a task that saves what is due was submitted, as there is no thread, and has not begun."""
        self.is_closing = False

    @property
    def save_after_s(self) -> float:
        """Return the age at which unsaved data is due."""
        return self._schedule.save_after_s

    # ------------------------------------------------------------------ what is reported

    def written(self, file: OpenFile) -> None:
        """Record that something was written to a file that had nothing unsaved. The caller holds the file's lock."""
        since_s = file.unsaved_since_s
        assert since_s is not None
        with self._lock:
            self._schedule.add(file.ino, since_s)
            self._wake_in_time()

    def saved(self, file: OpenFile, *, is_done: bool) -> None:
        """Record an attempt to save the file, and whether it succeeded. The caller holds the file's commit lock."""
        with file.lock:
            since_s = file.unsaved_since_s
            with self._lock:
                if is_done and self._schedule.is_failing:
                    self._schedule.succeeded()
                if since_s is None:
                    self._schedule.saved(file.ino)
                else:
                    self._schedule.add(file.ino, since_s)
                self._wake_in_time()
                self._eased.notify_all()

    def not_wanted(self, ino: int) -> None:
        """Record that nothing of this file is to be saved, until it is written to again."""
        with self._lock:
            self._schedule.saved(ino)

    def tried(self, saved: Collection[int], failed: Collection[int], now_s: float, *, is_general: bool) -> bool:
        """Record the outcome for files that were saved together. `is_general`: whether the failures concern all files.
        Returns whether nothing can be saved just now."""
        with self._lock:
            for ino in saved:
                self._schedule.attempted(ino)
            if saved:
                self._schedule.succeeded()
            elif is_general:
                self._schedule.failed(now_s)
            for ino in failed:
                if self._schedule.is_failing:
                    self._schedule.ask(ino)  # it was due, though perhaps not by its age: it was closed
                else:
                    self._schedule.postpone(ino, now_s)
            self._wake_in_time()
            self._eased.notify_all()
            return self._schedule.is_failing

    def _wake_in_time(self) -> None:
        """Wake the thread if it would sleep beyond what is due next. Call with the lock held."""
        next_s = self._schedule.next_s()
        if next_s is not None and next_s < self._sleeps_until_s:
            self.thread.wake()

    # ------------------------------------------------------------------ what is asked for

    def ask(self, inos: Collection[int]) -> bool:
        """Have these files saved as soon as possible. Returns whether the caller must submit a task that does so."""
        with self._lock:
            for ino in inos:
                self._schedule.ask(ino)
            self._wake_in_time()
            if self.thread.is_started or self._is_submitted:
                return False
            self._is_submitted = True
            return True

    def task_begun(self) -> None:
        """Record that the task which was submitted is about to save what is due."""
        with self._lock:
            self._is_submitted = False

    @property
    def is_failing(self) -> bool:
        """Return whether nothing could be saved at the last attempt."""
        with self._lock:
            return self._schedule.is_failing

    def slow_down(self, ino: int | None = None) -> None:
        """Wait while something has been unsaved for too long: of this file, or of many."""
        if not self.thread.is_started:
            return
        with self._lock:
            if self._schedule.is_late(self._monotonic(), ino):
                self._eased.wait_for(
                    lambda: self.is_closing or not self._schedule.is_late(self._monotonic(), ino), SLOW_MAX_S
                )

    # ------------------------------------------------------------------ for the thread that saves

    def due(self, now_s: float, count: int) -> tuple[list[int], float | None]:
        """Return at most `count` files that are due, and since when the oldest data is unsaved; None: nothing is."""
        with self._lock:
            oldest_s = self._schedule.oldest_s()
            return self._schedule.due(now_s, count), oldest_s

    def put_back(self, inos: Collection[int]) -> None:
        """Record that these, which were due, are still to be saved."""
        with self._lock:
            for ino in inos:
                self._schedule.ask(ino)

    def begins(self) -> bool:
        """Record that the thread is awake. Returns whether anything is due."""
        with self._lock:
            self._sleeps_until_s = -math.inf
            next_s = self._schedule.next_s()
        return next_s is not None and next_s <= self._monotonic()

    def worked(self) -> None:
        """Record that the thread has saved what was due."""
        self._worked_s = self._monotonic()

    def _pause_s(self) -> float | None:
        """Return how long the thread sleeps. If nothing is unsaved, it wakes once more when what is written from now on
        would be due: so it need not be woken for that."""
        with self._lock:
            now_s = self._monotonic()
            next_s = self._schedule.next_s()
            if next_s is None:
                next_s = self._worked_s + self._schedule.save_after_s
                if next_s <= now_s:
                    next_s = math.inf
            self._sleeps_until_s = next_s
            return None if next_s == math.inf else max(0.0, next_s - now_s)

    def close(self) -> None:
        """End the thread, after the current group. No writer is slowed down from now on."""
        with self._lock:
            self.is_closing = True
            self._eased.notify_all()
        self.thread.close()

    def retry(self, inos: Collection[int]) -> None:
        """Make these due at once, whatever failed before."""
        with self._lock:
            self._schedule.succeeded()
            for ino in inos:
                self._schedule.ask(ino)
