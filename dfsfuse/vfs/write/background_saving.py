"""Saving in the background: what is unsaved for some time, and what was closed with durability=fsync.

Unsaved data goes to the servers when it has an age (`save_after_s`), though its file stays open; the schedule
(schedule.py) says what is due. Files that are due are saved in groups, which share batches (`Saver.save_many`). A
region that still grows is saved only when its oldest byte has half that age: so a long file that is written fast
becomes whole regions, and not many small segments.

Under load data would come faster than it is saved. So when many files are unsaved, and something of them for half as
long again as it should, threads that write, make or close a file wait until that is saved (`slow_down`): the age is a
promise that holds even for many thousands of files. If only a few are late, such as one long file on a slow link, only
writers of these wait. Nothing waits for what cannot be saved: that is what errors are for.

A file whose commit lock is taken is being saved, or cut, by another thread; it is left for the next round, so that the
locks of a whole group can be held together without an order among them.

Threads: one of its own, between `start` and `close`, which sleeps while nothing is due; without it what is asked for is
done by the background's executor, and nothing gets an age. It is woken only for what is due before it wakes by itself:
a program that makes one file after the other wakes it once in `save_after_s`, and not with each file. One lock guards
the schedule, is taken after `OpenFile.lock`, and is held for moments only; slowed writers wait for it as `_eased`. One
group at a time (`_turn`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from typing import Final

from dfsfuse.common.worker import Worker
from dfsfuse.errors import MaybeDoneError, NoSpaceError, UnavailableError
from dfsfuse.vfs.context import Context, log
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.open.open_files import OpenFiles
from dfsfuse.vfs.write.saving import Saver
from dfsfuse.vfs.write.schedule import Schedule

SAVE_AFTER_S: Final = 1.0
GROUP_FILES: Final = 512
"""At most this many files are saved together."""
GROUP_BYTES: Final = 8 * 1024 * 1024
"""A group of several files has at most this many bytes: an fsync of one of them waits for all."""
SLOW_MAX_S: Final = 10.0
"""No operation is delayed longer than this, whatever happens."""
LOG_AGAIN_S: Final = 60.0
"""How often slowness is logged."""
PAUSE_S: Final = 0.02
"""The pause before a file that another thread is saving is checked again."""


class BackgroundSaver:
    """See the module."""

    def __init__(self, context: Context, files: OpenFiles, saver: Saver, *, save_after_s: float = SAVE_AFTER_S) -> None:
        self._context = context
        self._files = files
        self._saver = saver
        saver.on_saved = self._was_saved
        self._lock = threading.Lock()
        self._eased = threading.Condition(self._lock)
        """Signals that something was saved, or cannot be: slowed writers may go on."""
        self._sleeps_until_s = -math.inf
        """When the thread wakes by itself. While it is awake it checks the schedule before it sleeps."""
        self._worked_s = -math.inf
        """When the thread last had something to save. Used by it only."""
        self._schedule = Schedule(save_after_s)
        self._turn = threading.Lock()
        self._logged_slow_s = -math.inf
        """When slowness was last logged. Guarded by `_turn`."""
        self._is_failing_logged = False
        """Whether the log last said that nothing can be saved. Guarded by `_turn`."""
        self._is_submitted = False
        """Whether the executor has a task of ours that has not begun."""
        self._is_closing = False
        self._worker = Worker("vfs-saving", self._pause_s, "saving in the background", stop_s=None)

    def start(self) -> None:
        """Start saving what has reached the age."""
        self._worker.start(self._step)

    def stop(self) -> None:
        """Stop, after the current group. What is unsaved is left to the caller."""
        with self._lock:
            self._is_closing = True
            self._eased.notify_all()
        self._worker.close()

    def close(self) -> None:
        """Save everything, as long as that succeeds, and stop. What is left is up to the caller."""
        self.stop()
        unsaved = self._all_unsaved()
        with self._lock:
            self._schedule.succeeded()  # unmounting need not wait for the next attempt
            for ino in unsaved:
                self._schedule.ask(ino)
        with self._turn:
            while self._save_group() and not self.is_failing:
                pass

    # ------------------------------------------------------------------ what is reported

    def is_unsaved(self, file: OpenFile) -> None:
        """Record that something was written to a file that had nothing unsaved. The caller holds the file's lock."""
        since_s = file.unsaved_since_s
        assert since_s is not None
        with self._lock:
            self._schedule.add(file.ino, since_s)
            self._wake_in_time()

    def _was_saved(self, file: OpenFile, is_done: bool) -> None:
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

    def _wake_in_time(self) -> None:
        """Wake the thread if it would sleep beyond what is due next. Holds the lock."""
        next_s = self._schedule.next_s()
        if next_s is not None and next_s < self._sleeps_until_s:
            self._worker.wake()

    # ------------------------------------------------------------------ what is asked for

    def save_later(self, file: OpenFile, *, seal: bool = True) -> None:
        """Save the file as soon as possible. Without `seal` only what need not be sealed early for it. A failure that
        is not temporary is reported by the next write or flush."""
        pinned = self._files.pin(file.ino)
        with pinned.lock:
            was_due, pinned.is_commit_due = pinned.is_commit_due, True
            pinned.is_seal_due |= seal
        if was_due:
            self._files.unpin(pinned)
        self._ask([file.ino])

    def save_everything(self) -> None:
        """Save all files as soon as possible: memory is short."""
        self._ask(self._all_unsaved())

    def _all_unsaved(self) -> list[int]:
        """Return all files with unsaved data, which is to be saved however recent it is."""
        wanted = []
        for file in self._files.all():
            with file.lock:
                if file.has_data and not file.is_unlinked:
                    file.is_seal_due = True
                    wanted.append(file.ino)
        return wanted

    def _ask(self, inos: list[int]) -> None:
        with self._lock:
            for ino in inos:
                self._schedule.ask(ino)
            self._wake_in_time()
            if self._worker.is_started or self._is_submitted:
                return
            self._is_submitted = True
        self._context.background.submit(self._work)

    @property
    def is_failing(self) -> bool:
        """Return whether nothing could be saved at the last attempt."""
        with self._lock:
            return self._schedule.is_failing

    def slow_down(self, ino: int | None = None) -> None:
        """Wait while something has been unsaved for too long: of this file, or of many."""
        if not self._worker.is_started:
            return
        with self._lock:
            if self._schedule.is_late(self._context.monotonic(), ino):
                self._eased.wait_for(
                    lambda: self._is_closing or not self._schedule.is_late(self._context.monotonic(), ino), SLOW_MAX_S
                )

    # ------------------------------------------------------------------ the work

    def _step(self) -> None:
        with self._lock:
            self._sleeps_until_s = -math.inf
            next_s = self._schedule.next_s()
        if next_s is not None and next_s <= self._context.monotonic():
            try:
                self.save_due()
            finally:
                self._worked_s = self._context.monotonic()

    def _pause_s(self) -> float | None:
        """Return how long to sleep. If nothing is unsaved, the thread wakes once more when what is written from now on
        would be due: so it need not be woken for that."""
        with self._lock:
            now_s = self._context.monotonic()
            next_s = self._schedule.next_s()
            if next_s is None:
                next_s = self._worked_s + self._schedule.save_after_s
                if next_s <= now_s:
                    next_s = math.inf
            self._sleeps_until_s = next_s
            return None if next_s == math.inf else max(0.0, next_s - now_s)

    def _work(self) -> None:
        with self._lock:
            self._is_submitted = False
        self.save_due()

    def save_due(self) -> None:
        """Save all that is due."""
        with self._turn:
            while not self._is_closing and self._save_group():
                pass

    def _save_group(self) -> bool:
        """Save some of what is due. Returns False if nothing is."""
        now_s = self._context.monotonic()
        with self._lock:
            oldest_s = self._schedule.oldest_s()
            due = self._schedule.due(now_s, GROUP_FILES)
        if due and oldest_s is not None and now_s - oldest_s > 2 * self._schedule.save_after_s:
            self._log_slow(now_s - oldest_s, now_s)
        group = self._take(due, now_s)
        try:
            failures = self._saver.save_many(group)
        finally:
            for file in group:
                file.commit_lock.release()
        self._report(failures, group, now_s)
        for file, until_s in group.items():
            self._finish(file, failures.get(file), is_whole=until_s == math.inf)
        if due and not group:
            if self._is_closing:
                return False  # the closing thread saves, one by one, what others are saving just now
            self._worker.wait(PAUSE_S)
        return bool(due)

    def _log_slow(self, age_s: float, now_s: float) -> None:
        """Log that something has got older than promised: the servers take data slowly, or this machine stood still."""
        if now_s >= self._logged_slow_s + LOG_AGAIN_S:
            self._logged_slow_s = now_s
            log.warning("data is saved slowly: a write has been waiting for %.1f s", age_s)

    def _take(self, due: list[int], now_s: float) -> dict[OpenFile, float]:
        """Return those of these files that can be saved now, pinned and with their commit locks, and until when. The
        others are left for the next round."""
        group: dict[OpenFile, float] = {}
        size = 0
        left = []
        for ino in due:
            file = self._files.pin_if_open(ino)
            if file is None or not self._is_wanted(file):
                if file is None:
                    with self._lock:
                        self._schedule.saved(ino)
                else:
                    self._finish(file, None)
                continue
            with file.lock:
                its_size = file.unsaved_bytes
            if (group and size + its_size > GROUP_BYTES) or not file.commit_lock.acquire(blocking=False):
                left.append(ino)
                self._files.unpin(file)
                continue
            size += its_size
            with file.lock:
                until_s = math.inf if file.is_seal_due else now_s - self._schedule.save_after_s / 2
                file.is_seal_due = False
            group[file] = until_s
        with self._lock:
            for ino in left:
                self._schedule.ask(ino)
        return group

    def _is_wanted(self, file: OpenFile) -> bool:
        """Return whether the file has something to be saved; if not, the schedule forgets it until it is written to
        again."""
        with file.lock:
            if file.has_data and not file.is_unlinked:
                return True
            with self._lock:
                self._schedule.saved(file.ino)
            return False

    def _finish(self, file: OpenFile, failure: Exception | None, *, is_whole: bool = False) -> None:
        """Undo the pins of a file that was in a group, as a whole or what was old of it. One that could not be saved
        stays, until it is, or until nothing of it is to be saved any more: it was cut to nothing, or its last name was
        removed."""
        with file.lock:
            was_due, file.is_commit_due = file.is_commit_due, False
            pins = 1 + was_due
            is_wanted = file.has_data and not file.is_unlinked
            if failure is not None and is_wanted:
                file.is_seal_due |= is_whole  # its recent data is retried with the rest
                if not isinstance(failure, UnavailableError | MaybeDoneError):
                    file.error = failure  # it may not be transient
                if not file.is_kept:
                    file.is_kept = True
                    pins -= 1
            elif file.is_kept and not is_wanted:
                file.is_kept = False
                pins += 1
        for _ in range(pins):
            self._files.unpin(file)

    def _report(self, failures: dict[OpenFile, Exception], group: Collection[OpenFile], now_s: float) -> None:
        """Report the outcome of a group to the schedule and to the log."""
        if not group:
            return
        with self._lock:
            for file in group:
                if file not in failures:
                    self._schedule.attempted(file.ino)
            if len(failures) < len(group):
                self._schedule.succeeded()
            elif all(
                isinstance(failure, UnavailableError | MaybeDoneError | NoSpaceError) for failure in failures.values()
            ):
                self._schedule.failed(now_s)
            for file in failures:
                if self._schedule.is_failing:
                    self._schedule.ask(file.ino)  # it was due, though perhaps not by its age: it was closed
                else:
                    self._schedule.postpone(file.ino, now_s)
            is_failing = self._schedule.is_failing
            self._wake_in_time()
            self._eased.notify_all()
        was_logged, self._is_failing_logged = self._is_failing_logged, is_failing
        if is_failing and not was_logged:
            file, failure = next(iter(failures.items()))
            log.error(
                "inode %d and others: the last writes are not saved yet and will be retried: %s", file.ino, failure
            )
        elif was_logged and not is_failing:
            log.warning("unsaved data is being saved again")
        if not is_failing:
            for file, failure in failures.items():
                log.error("inode %d: the last writes are not saved yet and will be retried: %s", file.ino, failure)
