"""A writer: a thread with its own folder in one of the mounts, which no other thread changes.

It runs one operation after another, through the kernel, and knows after each what the folder must look like
(`model.Journal`). What it reads must be exactly that; it also reads what was acknowledged to other writers, through its
own mount. After an excused failure it makes a barrier, looks at the folder, and goes on from what it finds, if that is
allowed.

`lock` is held during each operation on the folder, also when another writer looks at it, so that its holder sees the
writer between two operations. Only the thread that drives the run holds more than one.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from support.mounts import Mount

from .choices import CHANGES, Choices
from .history import History, ViolationError
from .model import FILE, FOLDER, SYMLINK, Entry, Found, Journal, Operation, State, difference
from .worker import PAUSE_S, Worker

T = TypeVar("T")
SETTLE: Final = ".settle"
"""A file for barriers, which is never compared."""
READ_BYTES: Final = 1024 * 1024
INCOMPLETE: Final = " [incomplete]"
PEEKS: Final = 0.08
"""Probability that a writer looks at another writer's file."""


class Writer(Worker):
    """See the module."""

    def __init__(self, name: str, mount_name: str, mount: Mount, history: History, choices: Choices) -> None:
        super().__init__(name, mount_name, history)
        self.folder = mount.path / name
        self.journal = Journal()
        self.others: Sequence[Writer] = ()
        self._mounted_at = mount.path
        self._choices = choices
        self._failures = 0  # the mount's, at the last barrier

    def turn(self) -> float:
        if self._choices.random.random() < PEEKS and self.others:
            is_right = self._peek(self._choices.random.choice(self.others))
        else:
            with self.lock:
                is_right = self.settle() if self.is_unsettled else self._step()
        return 0.0 if is_right else PAUSE_S

    @property
    def is_unsettled(self) -> bool:
        """Whether the folder's content has to be looked up."""
        return self.is_crashed or self.journal.is_in_doubt

    # ------------------------------------------------------------------ one operation

    def _step(self) -> bool:
        """Do something. Returns false after an excused failure."""
        verb, state, begin = self._choices.verb(), self.journal.current, time.monotonic()
        try:
            if verb == "replace":
                return self._replace(state)
            if verb not in CHANGES:
                self._look(verb, state)
                return True
        except OSError as error:
            self._history.excuse(self.name, self.mount_name, verb, begin, error)
            self.is_crashed = True  # the file may be lost
            return False
        operation = self._choices.operation(verb, state)
        return operation is None or self._change(operation)

    def _replace(self, state: State) -> bool:
        """Replace a file as editors do: write a new one under another name, then rename it over the old one."""
        path = self._choices.file(state)
        if not path:
            return True
        temporary = f"{path}.new"
        if temporary in state.names:  # left by a replacement whose rename failed; creating it again would not be legal
            return True
        return self._change(self._choices.creation(temporary)) and self._change(Operation("rename", temporary, path))

    def _change(self, operation: Operation) -> bool:
        begin = time.monotonic()
        is_barrier = operation.verb in ("write", "append") or (operation.verb == "create" and operation.size > 0)
        try:
            self._call(operation.verb, operation.path, lambda: self._perform(operation))
        except OSError as error:
            reason = self._history.excuse(self.name, self.mount_name, str(operation), begin, error)
            self.journal.failed(operation, reason)
            return False
        self.journal.acknowledged(operation, durable=is_barrier)
        if is_barrier:
            self._failures = self._history.failures[self.mount_name]
        return True

    def _call(self, verb: str, what: str, action: Callable[[], T]) -> T:
        return self._history.call(self.name, self.mount_name, verb, what, action)

    def _perform(self, operation: Operation) -> None:
        path, other = self.folder / operation.path, self.folder / operation.other
        match operation.verb:
            case "create":
                self._put(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, operation)
            case "write":
                self._put(path, os.O_RDWR, operation)
            case "append":
                self._put(path, os.O_WRONLY | os.O_APPEND, operation)
            case "truncate":
                os.truncate(path, operation.size)
            case "rename":
                path.rename(other)
            case "link":
                os.link(path, other)
            case "unlink":
                path.unlink()
            case "mkdir":
                path.mkdir()
            case "rmdir":
                path.rmdir()
            case "symlink":
                path.symlink_to(operation.other)
            case _:
                raise ValueError(operation.verb)

    def _put(self, path: Path, flags: int, operation: Operation) -> None:
        data, offset = memoryview(operation.data()), operation.offset
        with_fsync = operation.version % 3 == 0
        descriptor = os.open(path, flags, 0o644)
        try:
            while data:
                is_append = flags & os.O_APPEND
                written = os.write(descriptor, data) if is_append else os.pwrite(descriptor, data, offset)
                data, offset = data[written:], offset + written
            if with_fsync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # ------------------------------------------------------------------ looking

    def _look(self, verb: str, state: State) -> None:
        random = self._choices.random
        path = self._choices.file(state)
        if verb == "list":
            found = self._call("list", ".", lambda: names_below(self.folder))
            due = sorted(state.names)
            self._compare("names", "the folder", due == found, f"{found}, not {due}", self)
        elif verb == "sync folder":
            self._call(verb, ".", lambda: sync(self.folder, os.O_RDONLY | os.O_DIRECTORY))
            self._is_at_barrier()
        elif not path:
            return
        elif verb == "sync":
            self._call(verb, path, lambda: sync(self.folder / path, os.O_WRONLY))
            self._is_at_barrier()
        else:
            wanted = state.contents[state.names[path].number]
            start, size = 0, len(wanted) + 1
            if verb == "range":
                start = random.randint(0, len(wanted))
                size = random.randint(0, 300_000)
            self._read_and_compare(self, path, wanted, start, size, verb)

    def _is_at_barrier(self) -> None:
        self.journal.barrier()
        self._failures = self._history.failures[self.mount_name]

    def _peek(self, other: Writer) -> bool:
        """Check that what was acknowledged to another writer shows at once in a file opened here."""
        begin = time.monotonic()
        with other.lock:
            state = other.journal.current
            path = self._choices.file(state)
            if not path or other.is_unsettled or other.may_have_lost():
                return True
            try:
                self._read_and_compare(other, path, state.contents[state.names[path].number], 0, 1 << 62, "peek")
            except OSError as error:
                self._history.excuse(self.name, self.mount_name, "peek", begin, error)
                return False
        return True

    def may_have_lost(self) -> bool:
        """Whether something was answered early and the mount has reported a loss since."""
        return self.journal.unsure > 0 and self._failures != self._history.failures[self.mount_name]

    def _read_and_compare(self, owner: Writer, path: str, wanted: bytes, start: int, size: int, verb: str) -> None:
        whole = self._mounted_at / owner.name / path
        found = self._call(verb, f"{owner.name}/{path}", lambda: read(whole, start, size))
        due = wanted[start : start + size]
        text = "" if due == found else f"from {start} on: {difference(due, found)}"
        self._compare(verb, f"{owner.name}/{path}", found == due, text, owner)

    def _compare(self, kind: str, what: str, is_right: bool, text: str, owner: Writer) -> None:
        if is_right:
            self._history.checked(kind)
        elif owner.may_have_lost():
            owner.is_crashed = True
        else:
            self._history.violation(f"{self.name} on {self.mount_name}: {what}: {text}\n{owner.recently()}")
            raise ViolationError(what)

    def recently(self) -> str:
        """The end of the journal."""
        return "\n".join(f"    {line}" for line in self.journal.lines[-30:])

    # ------------------------------------------------------------------ after a failure

    def settle(self) -> bool:
        """Look at the folder, and accept what is there if it is allowed. Returns false after an excused failure. Holds
        the lock."""
        begin = time.monotonic()
        doubt = self.journal.doubtful_paths()
        try:
            self._call("settle", ".", lambda: self._barrier(doubt))
            found = self.look(self._mounted_at, self)
        except OSError as error:
            self._history.excuse(self.name, self.mount_name, "looking what is there", begin, error)
            return False
        may_be_lost = self.is_crashed or self._failures != self._history.failures[self.mount_name]
        problems = self.journal.adopt(found, crashed=may_be_lost)
        if problems:
            self._history.violation(
                f"{self.name} on {self.mount_name}, after a fault: {'; '.join(problems[:5])}\n{self.recently()}"
            )
            raise ViolationError(self.name)
        self.is_crashed = False
        self._failures = self._history.failures[self.mount_name]
        self._history.checked("settled")
        return True

    def _barrier(self, doubtful: Sequence[str]) -> None:
        """After this, no operation that began before is still in progress."""
        descriptor = os.open(self.folder / SETTLE, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, b"settled\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for path in doubtful:
            try:
                if stat.S_ISREG(os.lstat(self.folder / path).st_mode):
                    sync(self.folder / path, os.O_RDWR)
            except (FileNotFoundError, NotADirectoryError):
                continue

    def look(self, mounted_at: Path, by: Writer | None = None, *, mount_name: str = "") -> Found:
        """Return the whole folder as a mount shows it."""
        name = mount_name or self.mount_name
        return self._history.call(
            by.name if by else "checker", name, "look", self.name, lambda: tree(mounted_at / self.name)
        )


def sync(path: Path, flags: int) -> None:
    """Open a file and fsync it."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path, start: int = 0, size: int = 1 << 62) -> bytes:
    """Read a range of a file."""
    parts = []
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while size > 0 and (part := os.pread(descriptor, min(size, READ_BYTES), start)):
            parts.append(part)
            start, size = start + len(part), size - len(part)
    finally:
        os.close(descriptor)
    return b"".join(parts)


def names_below(folder: Path) -> list[str]:
    """Return all names below the folder, sorted. Raises OSError (EIO) if a file is shown as incomplete, so that this
    counts as a failure, which needs an excuse."""
    names = []
    for where, folders, files in os.walk(folder, onerror=_raise):
        inside = Path(where).relative_to(folder)
        names += [str(inside / name) for name in (*folders, *files)]
    if any(name.endswith(INCOMPLETE) for name in names):
        raise OSError(errno.EIO, "files are incomplete")
    return sorted(name for name in names if name != SETTLE)


def _raise(error: OSError) -> None:
    raise error


def tree(folder: Path) -> Found:
    """Return everything in the folder, with all contents."""
    names, contents, links = {}, {}, {}
    for name in names_below(folder):
        path = folder / name
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            names[name] = Entry(FOLDER)
        elif stat.S_ISLNK(status.st_mode):
            names[name] = Entry(SYMLINK, target=str(path.readlink()))
        else:
            names[name] = Entry(FILE, status.st_ino)
            contents[status.st_ino] = read(path)
            links[status.st_ino] = status.st_nlink
    return Found(names, contents, links)
