"""Two mounts compete: for names that only one of them may create, and in a file that both append to.

A contestant is a thread in one mount. It wins a name by creating it (`O_EXCL`) and closing it with its own name as the
content: at most one contestant may win each name, and a name that was won exists forever, with the winner's name in it.
A record that was appended and closed is in the file exactly once; one whose append failed, at most once; and each
contestant's records are in order.

`Scores` knows what was acknowledged; its `_lock` guards all of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

from .history import History, ViolationError
from .worker import PAUSE_S, Worker
from .writer import read

FOLDER: Final = "contest"
RECORD_BYTES: Final = 32
RECORDS_MAX: Final = 400
"""Number of records in one file, after which the next one is used."""
REST_S: Final = 0.02
"""Pause between turns, which leaves most of the mounts' time to the writers."""


class Scores:
    """The winners, and what was appended. Pure except for its lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = {"name": 0, "file": 0}
        self.winners: dict[int, str] = {}
        self.maybe: dict[int, set[str]] = {}
        self.appended: dict[int, list[bytes]] = {}
        self.maybe_appended: dict[int, list[bytes]] = {}

    def name(self, after: int) -> int:
        """Return the next name to compete for. All contestants try the same names; one that is behind skips some."""
        with self._lock:
            self._next["name"] = max(self._next["name"], after + 1)
            return self._next["name"]

    def file(self) -> int:
        """Return the number of the file to append to."""
        with self._lock:
            if len(self.appended.get(self._next["file"], ())) >= RECORDS_MAX:
                self._next["file"] += 1
            return self._next["file"]

    def won(self, name: int, who: str, *, surely: bool) -> str:
        """Record that a contestant created the name. Returns what is wrong with that; empty if nothing is."""
        with self._lock:
            if not surely:
                self.maybe.setdefault(name, set()).add(who)
                return ""
            if name in self.winners:
                return f"{who} and {self.winners[name]} both created name {name} exclusively"
            self.winners[name] = who
            return ""

    def added(self, file: int, record: bytes, *, surely: bool) -> None:
        """Record an appended record."""
        with self._lock:
            (self.appended if surely else self.maybe_appended).setdefault(file, []).append(record)

    def problems_of_names(self, found: dict[int, bytes]) -> list[str]:
        """Return what is wrong with the names found, given with their contents."""
        wrong = [f"name {name}, won by {who}, is missing" for name, who in self.winners.items() if name not in found]
        for name, content in found.items():
            allowed = {self.winners[name]} if name in self.winners else self.maybe.get(name, set()) | {""}
            if content.decode(errors="replace") not in allowed:
                wrong.append(f"name {name} says {content[:40]!r}, and not one of {sorted(allowed)}")
        return wrong

    def problems_of_records(self, file: int, content: bytes) -> list[str]:
        """Return what is wrong with a file of records."""
        if len(content) % RECORD_BYTES:
            return [f"file {file} of records has {len(content)} bytes: one of them is torn"]
        found = [content[at : at + RECORD_BYTES] for at in range(0, len(content), RECORD_BYTES)]
        counts = Counter(found)
        sure, maybe = self.appended.get(file, []), set(self.maybe_appended.get(file, []))
        wrong = [f"file {file}: {record!r} is missing" for record in sure if not counts[record]]
        wrong += [f"file {file}: {record!r} is there {count} times" for record, count in counts.items() if count > 1]
        wrong += [f"file {file}: nobody wrote {record!r}" for record in counts if record not in {*sure, *maybe}]
        for who in {record[:2] for record in found}:
            own = [record for record in found if record[:2] == who]
            if own != sorted(own):
                wrong.append(f"file {file}: the records of {who!r} are not in order")
        return wrong


class Contestant(Worker):
    """See the module. It does not care whether its mount was killed: each operation is durable or in doubt."""

    def __init__(self, name: str, mount_name: str, mounted_at: Path, history: History, scores: Scores) -> None:
        super().__init__(name, mount_name, history)
        self._folder = mounted_at / FOLDER
        self._scores = scores
        self._at = 0
        self._record = 0

    def turn(self) -> float:
        with self.lock:
            is_right = self._create() and self._append()
        return REST_S if is_right else PAUSE_S

    def _create(self) -> bool:
        self._at = self._scores.name(self._at)
        path, begin = self._folder / f"name-{self._at}", time.monotonic()
        try:
            self._history.call(
                self.name, self.mount_name, "exclusive", path.name, lambda: put(path, os.O_EXCL, self.name.encode())
            )
        except FileExistsError:
            return True
        except OSError as error:
            self._history.excuse(self.name, self.mount_name, "exclusive", begin, error)
            self._scores.won(self._at, self.name, surely=False)
            return False
        problem = self._scores.won(self._at, self.name, surely=True)
        if problem:
            self._history.violation(problem)
            raise ViolationError(problem)
        self._history.checked("exclusive")
        return True

    def _append(self) -> bool:
        self._record += 1
        file, begin = self._scores.file(), time.monotonic()
        record = f"{self.name[:2]} {self._record:08}".encode().ljust(RECORD_BYTES - 1, b".") + b"\n"
        path = self._folder / f"records-{file}"
        try:
            self._history.call(self.name, self.mount_name, "record", path.name, lambda: put(path, os.O_APPEND, record))
        except OSError as error:
            self._history.excuse(self.name, self.mount_name, "record", begin, error)
            self._scores.added(file, record, surely=False)
            return False
        self._scores.added(file, record, surely=True)
        return True


def put(path: Path, flags: int, data: bytes) -> None:
    """Create or open a file, write, and close it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def problems(folder: Path, scores: Scores) -> tuple[int, list[str]]:
    """Return the number of names and records in a folder, and what is wrong with them. The contestants must be
    paused."""
    names, wrong, count = {}, [], 0
    for path in sorted(folder.iterdir()):
        kind, _, number = path.name.partition("-")
        if kind == "name":
            names[int(number)] = read(path)
            count += 1
        else:
            content = read(path)
            wrong += scores.problems_of_records(int(number), content)
            count += len(content) // RECORD_BYTES
    wrong += [
        f"file {file} of records is missing" for file in scores.appended if not (folder / f"records-{file}").exists()
    ]
    return count, wrong + scores.problems_of_names(names)
