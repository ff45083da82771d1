"""Saving in the background: what is unsaved for some time, and what was closed with durability=fsync.

Unsaved data goes to the servers when it has an age (`save_after_s`), though its file stays open; the schedule
(schedule.py) says what is due. Files that are due are saved in groups, which share batches (`Saver.save_many`). A
region that still grows is saved only when its oldest byte has half that age: so a long file that is written fast
becomes whole regions, and not many small segments.

A file whose commit lock is taken is being saved, or cut, by another thread; it is left for the next round, so that the
locks of a whole group can be held together without an order among them.

Threads: one of its own, between `start` and `close`, which sleeps while nothing is due (backlog.py); without it what is
asked for is done by the background's executor, and nothing gets an age. One group at a time (`_turn`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from typing import Final

from dfsfuse.errors import MaybeDoneError, NoSpaceError, UnavailableError
from dfsfuse.vfs.context import Context, log
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.open.open_files import OpenFiles
from dfsfuse.vfs.write.backlog import Backlog
from dfsfuse.vfs.write.saving import Saver

GROUP_FILES: Final = 512
"""At most this many files are saved together."""
GROUP_BYTES: Final = 8 * 1024 * 1024
"""A group of several files has at most this many bytes: an fsync of one of them waits for all."""
LOG_AGAIN_S: Final = 60.0
"""How often slowness is logged."""
PAUSE_S: Final = 0.02
"""The pause before a file that another thread is saving is checked again."""


class BackgroundSaver:
    """See the module."""

    def __init__(self, context: Context, files: OpenFiles, saver: Saver, backlog: Backlog) -> None:
        self._context = context
        self._files = files
        self._saver = saver
        self._backlog = backlog
        self._turn = threading.Lock()
        self._logged_slow_s = -math.inf
        """When slowness was last logged. Guarded by `_turn`."""
        self._is_failing_logged = False
        """Whether the log last said that nothing can be saved. Guarded by `_turn`."""

    def start(self) -> None:
        """Start saving what has reached the age."""
        self._backlog.thread.start(self._step)

    def stop(self) -> None:
        """Stop, after the current group. What is unsaved is left to the caller."""
        self._backlog.close()

    def close(self) -> None:
        """Save everything, as long as that succeeds, and stop. What is left is up to the caller."""
        self.stop()
        self._backlog.retry(self._all_unsaved())  # unmounting need not wait for the next attempt
        with self._turn:
            while self._save_group() and not self._backlog.is_failing:
                pass

    # ------------------------------------------------------------------ what is asked for

    def save_later(self, file: OpenFile, *, seal: bool = True) -> None:
        """Save the file as soon as possible. Without `seal` only what need not be sealed early for it. A failure that
        does not pass by itself is raised by the next write or flush."""
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
        if self._backlog.ask(inos):
            self._context.background.submit(self._work)

    # ------------------------------------------------------------------ the work

    def _step(self) -> None:
        if self._backlog.begins():
            try:
                self.save_due()
            finally:
                self._backlog.worked()

    def _work(self) -> None:
        self._backlog.task_begun()
        self.save_due()

    def save_due(self) -> None:
        """Save all that is due."""
        with self._turn:
            while not self._backlog.is_closing and self._save_group():
                pass

    def _save_group(self) -> bool:
        """Save some of what is due. Returns False if nothing is."""
        now_s = self._context.monotonic()
        due, oldest_s = self._backlog.due(now_s, GROUP_FILES)
        if due and oldest_s is not None and now_s - oldest_s > 2 * self._backlog.save_after_s:
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
            if self._backlog.is_closing:
                return False  # the closing thread saves, one by one, what others are saving just now
            self._backlog.thread.wait(PAUSE_S)
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
                    self._backlog.not_wanted(ino)
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
                until_s = math.inf if file.is_seal_due else now_s - self._backlog.save_after_s / 2
                file.is_seal_due = False
            group[file] = until_s
        self._backlog.put_back(left)
        return group

    def _is_wanted(self, file: OpenFile) -> bool:
        """Return whether the file has something to be saved; if not, the backlog forgets it until it is written to
        again."""
        with file.lock:
            if file.has_data and not file.is_unlinked:
                return True
            self._backlog.not_wanted(file.ino)
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
        """Report the outcome of a group to the backlog and to the log."""
        if not group:
            return
        saved = [file.ino for file in group if file not in failures]
        is_general = all(
            isinstance(failure, UnavailableError | MaybeDoneError | NoSpaceError) for failure in failures.values()
        )
        is_failing = self._backlog.tried(saved, [file.ino for file in failures], now_s, is_general=is_general)
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
