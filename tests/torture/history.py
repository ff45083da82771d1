"""Records what was done, how long it took, and what was wrong. Thread-safe.

Every operation goes through `History.call`: its begin, end and result become a line of a log file, its time is counted
for the kind of fault at the time, and the watch can see operations that do not end. `Weather` knows present and past
faults, and so whether a failure is excused: while two servers or the operation's own mount are gone, and for a moment
afterwards; otherwise nothing may fail.

`_lock` guards everything in its class.
"""

from __future__ import annotations

import errno
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

DEADLINE_S: Final = 30.0
"""No operation may take longer with one server gone. This is half of the client's timeouts."""
ROUGH_DEADLINE_S: Final = 90.0
"""The same with two servers or a mount gone: a client waits for at most 60 s."""
PROMISED_S: Final = 1.0
"""One hanging server must not delay an operation for longer. On a busy machine everything takes long, so the count is
shown beside that without faults."""
CALM, HEALING = "calm", "dfc heal, verify"
AFTERMATH_S: Final = 15.0
"""Failures are excused for this long after two servers were gone: clients retry servers at least every 5 s."""

ROUGH_ERRORS: Final = frozenset(
    {
        *(errno.EIO, errno.EROFS, errno.ENOSPC, errno.ESTALE),
        *(errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV),  # the mount is gone
        *(errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY),  # an earlier operation's change was lost
    }
)
"""Errors with which an excused operation may fail."""


class ViolationError(AssertionError):
    """A promise is broken."""


@dataclass
class Spell:
    """A fault that lasts from `begin` to `end`; None while it lasts."""

    kind: str
    is_rough: bool
    mount: str
    begin: float
    end: float | None = None


class Weather:
    """Present and past faults. Times are from time.monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._spells: list[Spell] = []

    @contextmanager
    def spell(self, kind: str, *, rough: bool = False, mount: str = "") -> Iterator[None]:
        """Have this fault within the block. With `mount`, it affects this mount only."""
        spell = Spell(kind, rough, mount, self._clock())
        with self._lock:
            self._spells.append(spell)
        try:
            yield
        finally:
            with self._lock:
                spell.end = self._clock()

    def kind(self, begin: float) -> str:
        """Return the kind of the newest fault between `begin` and now; `CALM` if there was none."""
        with self._lock:
            met = [spell for spell in self._spells if spell.end is None or spell.end >= begin]
        return met[-1].kind if met else CALM

    def excuses(self, mount: str, begin: float) -> bool:
        """Return whether an operation on this mount that began then and ended now may have failed."""
        with self._lock:
            return any(
                spell.is_rough and spell.mount in ("", mount) and (spell.end is None or spell.end + AFTERMATH_S > begin)
                for spell in self._spells
            )


@dataclass
class Met:
    """The operations during one kind of fault: their number, how many took longer than `PROMISED_S`, the longest."""

    count: int = 0
    slow: int = 0
    longest_s: float = 0.0
    longest: str = ""

    def add(self, took_s: float, what: str) -> None:
        """Count an operation."""
        self.count += 1
        self.slow += took_s > PROMISED_S
        if took_s > self.longest_s:
            self.longest_s, self.longest = took_s, what


@dataclass(frozen=True)
class Running:
    """An operation that has not ended yet."""

    who: str
    what: str
    mount: str
    begin: float


class History:
    """See the module."""

    def __init__(self, log: Path, weather: Weather, clock: Callable[[], float] = time.monotonic) -> None:
        self.weather = weather
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()
        self._log = log.open("w")
        self._running: dict[int, Running] = {}
        self.operations: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self.excused: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()  # for each mount
        self.met: dict[str, Met] = {}  # by kind of fault
        self.violations: list[str] = []
        self.stopped = threading.Event()

    def call(self, who: str, mount: str, verb: str, what: str, action: Callable[[], T]) -> T:
        """Run the action and record it. Raises what the action raises."""
        begin = self._clock()
        with self._lock:
            self._running[threading.get_ident()] = Running(who, f"{verb} {what}", mount, begin)
        result = "lost"
        try:
            value = action()
            result = "ok"
            return value
        except OSError as error:
            result = errno.errorcode.get(error.errno or 0, str(error))
            raise
        finally:
            self._ended(who, mount, verb, what, begin, result)

    def _ended(self, who: str, mount: str, verb: str, what: str, begin: float, result: str) -> None:
        took_s, kind = self._clock() - begin, self.weather.kind(begin)
        is_rough = self.weather.excuses(mount, begin)
        with self._lock:
            self._running.pop(threading.get_ident(), None)
            self.operations[verb] += 1
            self.met.setdefault(kind, Met()).add(took_s, f"{verb} {what}")
            self._write(who=who, mount=mount, did=f"{verb} {what}", took_s=round(took_s, 4), result=result)
        if took_s > (ROUGH_DEADLINE_S if is_rough else DEADLINE_S):
            self.violation(f"{who} on {mount}: {verb} {what} took {took_s:.1f} s")

    def excuse(self, who: str, mount: str, what: str, begin: float, error: OSError) -> str:
        """Record a failure; if nothing excuses it, it is a violation. Raises `ViolationError`."""
        name = errno.errorcode.get(error.errno or 0, str(error))
        if not self.weather.excuses(mount, begin):
            self.violation(f"{who} on {mount}: {what} failed with {name} while one server at most was gone")
            raise ViolationError(what)
        if error.errno not in ROUGH_ERRORS:
            self.violation(f"{who} on {mount}: {what} failed with {name}, which no lost server explains")
            raise ViolationError(what)
        with self._lock:
            self.excused[name] += 1
            self.failures[mount] += 1
        return name

    def checked(self, what: str, count: int = 1) -> None:
        """Count something that was checked and found right."""
        with self._lock:
            self.checks[what] += count

    def note(self, **facts: object) -> None:
        """Write a line to the log."""
        with self._lock:
            self._write(**facts)

    def violation(self, text: str) -> None:
        """Record a broken promise, which ends the run."""
        with self._lock:
            self.violations.append(text)
            self._write(violation=text)
        self.stopped.set()

    def late(self) -> list[Running]:
        """Return operations that have not ended and are past their deadline."""
        now = self._clock()
        with self._lock:
            running = list(self._running.values())
        return [
            each
            for each in running
            if now - each.begin > (ROUGH_DEADLINE_S if self.weather.excuses(each.mount, each.begin) else DEADLINE_S)
        ]

    def close(self) -> None:
        self._log.close()

    def _write(self, **facts: object) -> None:
        if not self._log.closed:
            self._log.write(json.dumps({"at_s": round(self._clock() - self._start, 4)} | facts) + "\n")
            self._log.flush()
