"""A Hypothesis state machine: the same random operations on a plain folder and on a file system under test.

Every operation's result or errno must be equal on both, every open file must read equally, and from time to time and at
the end both trees must be completely equal. `machine_for` makes such a test from a function that provides an empty file
system; `_visible` lists what is compared. Single-threaded.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from conformance.fs import Fs, OsFs, Stat
from conformance.registry import read_all
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

NAMES = (b"a", b"b", b"c", b"\xff\n")
MAX_DEPTH = 4


@dataclass(frozen=True)
class Pick:
    """A path that is chosen when the operation runs: usually an existing one, or a new name in an existing folder."""

    how: str
    index: int
    name: bytes

    def among(self, existing: list[tuple[bytes, bool]]) -> bytes:
        """Choose a path; `existing` is a sorted list of (path, is a folder)."""
        folders = [path for path, is_folder in existing if is_folder and path.count(b"/") < MAX_DEPTH - 1]
        if self.how == "existing" and existing:
            return existing[self.index % len(existing)][0]
        if self.how == "in a folder" and folders:
            return folders[self.index % len(folders)] + b"/" + self.name
        if self.how == "below anything" and existing:
            return existing[self.index % len(existing)][0] + b"/" + self.name
        return self.name


HOW = ("existing", "existing", "existing", "in a folder", "in a folder", "at the top", "below anything")
PATHS = st.builds(Pick, st.sampled_from(HOW), st.integers(0, 30), st.sampled_from(NAMES))
KIB, REGION = 1024, 4 * 1024 * 1024
OFFSETS = st.one_of(
    st.integers(0, 300),
    st.sampled_from((4095, 4096, 128 * KIB - 1, 128 * KIB, REGION - 2, REGION, REGION + 1)),
)
SIZES = st.one_of(st.integers(0, 300), st.sampled_from((4096, 70_000, 128 * KIB, 128 * KIB + 1, 300_001)))
MODES = st.sampled_from((0o600, 0o644, 0o755, 0o7777, 0o000, 0o4711))
TIMES = st.sampled_from((0, 1, 1_000_000_000_123_456_789, 2_500_000_000_000_000_001))
FLAGS = st.sampled_from(
    (
        os.O_RDONLY,
        os.O_RDWR,
        os.O_RDWR | os.O_CREAT,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL,
        os.O_RDWR | os.O_CREAT | os.O_TRUNC,
        os.O_WRONLY | os.O_TRUNC,
        os.O_RDWR | os.O_CREAT | os.O_APPEND,
    )
)
MAX_OPEN = 4
Outcome = tuple[str, object]


def _patch(size: int, seed: int) -> bytes:
    return hashlib.shake_128(seed.to_bytes(4, "big")).digest(size)


def _visible(found: Stat) -> tuple[object, ...]:
    """What must be equal on both sides: everything except inode numbers, and folders' sizes and link counts."""
    if stat.S_ISDIR(found.mode):
        return (found.mode, found.uid, found.gid)
    return (found.mode, found.uid, found.gid, found.nlink, found.size)


def tree(fs: Fs, path: bytes = b"", inodes: dict[int, int] | None = None) -> dict[bytes, tuple[object, ...]]:
    """Return everything below a folder, including which names share an inode."""
    inodes = {} if inodes is None else inodes
    found: dict[bytes, tuple[object, ...]] = {}
    for name in sorted(fs.listdir(path)):
        full = path + b"/" + name if path else name
        status = fs.lstat(full)
        group = inodes.setdefault(status.ino, len(inodes))
        data: object = None
        if stat.S_ISLNK(status.mode):
            data = fs.readlink(full)
        elif stat.S_ISREG(status.mode):
            fd = fs.open(full, os.O_RDONLY)
            try:
                data = hashlib.sha256(read_all(fs, fd)).hexdigest()
            finally:
                fs.close(fd)
        found[full] = (*_visible(status), group, data)
        if stat.S_ISDIR(status.mode):
            found |= tree(fs, full, inodes)
    return found


def _names(fs: Fs, folder: bytes = b"") -> Iterator[tuple[bytes, bool]]:
    """Return (path, is a folder) for everything below a folder."""
    for name in fs.listdir(folder):
        path = folder + b"/" + name if folder else name
        is_folder = stat.S_ISDIR(fs.lstat(path).mode)
        yield path, is_folder
        if is_folder:
            yield from _names(fs, path)


class Comparison(RuleBasedStateMachine):
    """The rules. A subclass defines with `make_fs` what is compared with the plain folder."""

    make_fs: Callable[[], AbstractContextManager[list[Fs]]]
    """Provides one or more views of the same empty file system, which operations use in turn."""
    names_stay_while_open = False
    """True for a path-based mount: a file's name is not removed while it is open (see conformance.deviations)."""

    def __init__(self) -> None:
        super().__init__()
        self._cleanup = contextlib.ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="dfs-model-"))
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        self._model: Fs = OsFs(folder)
        self._views: list[Fs] = []
        self._turn = 0
        self._open: list[tuple[int, Fs, int]] = []

    @initialize()
    def start(self) -> None:
        self._views = self._cleanup.enter_context(type(self).make_fs())

    # ------------------------------------------------------------------ comparing

    def _view(self) -> Fs:
        self._turn += 1
        return self._views[self._turn % len(self._views)]

    def _path(self, pick: Pick) -> bytes:
        return pick.among(sorted(_names(self._model)))

    def _both(self, operation: Callable[[Fs], object]) -> None:
        expected, found = _outcome(operation, self._model), _outcome(operation, self._view())
        assert found == expected, f"{_shown(found)}, a plain folder gives {_shown(expected)}"

    def _before_removal(self) -> None:
        while self.names_stay_while_open and self._open:
            self.handle_close(0)

    # ------------------------------------------------------------------ names

    @rule(path_pick=PATHS, mode=st.sampled_from((0o755, 0o700)))
    def mkdir(self, path_pick: Pick, mode: int) -> None:
        path = self._path(path_pick)
        self._both(lambda fs: fs.mkdir(path, mode))

    @rule(path_pick=PATHS)
    def rmdir(self, path_pick: Pick) -> None:
        path = self._path(path_pick)
        self._both(lambda fs: fs.rmdir(path))

    @rule(path_pick=PATHS)
    def unlink(self, path_pick: Pick) -> None:
        path = self._path(path_pick)
        self._before_removal()
        self._both(lambda fs: fs.unlink(path))

    @rule(old_pick=PATHS, new_pick=PATHS)
    def rename(self, old_pick: Pick, new_pick: Pick) -> None:
        old = self._path(old_pick)
        new = self._path(new_pick)
        self._before_removal()
        self._both(lambda fs: fs.rename(old, new))

    @rule(old_pick=PATHS, new_pick=PATHS)
    def link(self, old_pick: Pick, new_pick: Pick) -> None:
        old = self._path(old_pick)
        new = self._path(new_pick)
        self._both(lambda fs: fs.link(old, new))

    @rule(points_to_pick=PATHS, path_pick=PATHS)
    def symlink(self, points_to_pick: Pick, path_pick: Pick) -> None:
        points_to = self._path(points_to_pick)
        path = self._path(path_pick)
        self._both(lambda fs: fs.symlink(points_to, path))

    @rule(path_pick=PATHS)
    def readlink(self, path_pick: Pick) -> None:
        path = self._path(path_pick)
        self._both(lambda fs: fs.readlink(path))

    @rule(path_pick=PATHS)
    def listdir(self, path_pick: Pick) -> None:
        path = self._path(path_pick)
        self._both(lambda fs: sorted(fs.listdir(path)))

    # ------------------------------------------------------------------ attributes

    @rule(path_pick=PATHS)
    def stat(self, path_pick: Pick) -> None:
        path = self._path(path_pick)
        self._both(lambda fs: _visible(fs.stat(path)))

    @rule(path_pick=PATHS, mode=MODES)
    def chmod(self, path_pick: Pick, mode: int) -> None:
        path = self._path(path_pick)
        self._both(lambda fs: fs.chmod(path, mode))

    @rule(path_pick=PATHS, atime_ns=TIMES, mtime_ns=TIMES)
    def utimens(self, path_pick: Pick, atime_ns: int, mtime_ns: int) -> None:
        path = self._path(path_pick)

        def act(fs: Fs) -> object:
            fs.utimens(path, atime_ns, mtime_ns)
            found = fs.lstat(path)
            return (found.atime_ns, found.mtime_ns)

        self._both(act)

    @rule(path_pick=PATHS, length=OFFSETS)
    def truncate(self, path_pick: Pick, length: int) -> None:
        path = self._path(path_pick)
        self._both(lambda fs: fs.truncate(path, length))

    # ------------------------------------------------------------------ data

    @rule(path_pick=PATHS, size=SIZES, seed=st.integers(0, 1000))
    def put(self, path_pick: Pick, size: int, seed: int) -> None:
        path = self._path(path_pick)

        def act(fs: Fs) -> object:
            fd = fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                return fs.pwrite(fd, _patch(size, seed), 0)
            finally:
                fs.close(fd)

        self._both(act)

    @rule(path_pick=PATHS, offset=OFFSETS, size=SIZES, seed=st.integers(0, 1000))
    def write_into(self, path_pick: Pick, offset: int, size: int, seed: int) -> None:
        path = self._path(path_pick)

        def act(fs: Fs) -> object:
            fd = fs.open(path, os.O_RDWR)
            try:
                return (fs.pwrite(fd, _patch(size, seed), offset), fs.pread(fd, 1000, max(0, offset - 10)))
            finally:
                fs.close(fd)

        self._both(act)

    @rule(path_pick=PATHS, offset=OFFSETS, size=SIZES)
    def read(self, path_pick: Pick, offset: int, size: int) -> None:
        path = self._path(path_pick)

        def act(fs: Fs) -> object:
            fd = fs.open(path, os.O_RDONLY)
            try:
                return fs.pread(fd, size, offset)
            finally:
                fs.close(fd)

        self._both(act)

    # ------------------------------------------------------------------ files that stay open
    # (With one view only: between mounts, consistency is promised from close to open, not from write to read.)

    @precondition(lambda self: len(self._views) == 1 and len(self._open) < MAX_OPEN)
    @rule(path_pick=PATHS, flags=FLAGS)
    def open(self, path_pick: Pick, flags: int) -> None:
        path = self._path(path_pick)
        view = self._view()
        fds: list[int] = []

        def act(fs: Fs) -> None:
            fds.append(fs.open(path, flags))
            if stat.S_ISDIR(fs.fstat(fds[-1]).mode):
                fs.close(fds.pop())
                raise OSError(errno.EISDIR, "only files are kept open here")

        expected, found = _outcome(act, self._model), _outcome(act, view)
        assert found == expected, f"{_shown(found)}, a plain folder gives {_shown(expected)}"
        if len(fds) == 2:
            self._open.append((fds[0], view, fds[1]))

    def _handle(self, index: int, operation: Callable[[Fs, int], object]) -> None:
        """Run an operation on an open file of both sides. The kernel checks the access modes of handles."""
        model_fd, view, fd = self._open[index % len(self._open)]
        expected = _outcome(lambda fs: operation(fs, model_fd), self._model)
        if expected in (("errno", "EBADF"), ("errno", "EINVAL")):
            return
        found = _outcome(lambda fs: operation(fs, fd), view)
        assert found == expected, f"{_shown(found)}, a plain folder gives {_shown(expected)}"

    @precondition(lambda self: self._open)
    @rule(index=st.integers(0, MAX_OPEN), offset=OFFSETS, size=SIZES, seed=st.integers(0, 1000))
    def handle_write(self, index: int, offset: int, size: int, seed: int) -> None:
        self._handle(index, lambda fs, fd: fs.pwrite(fd, _patch(size, seed), offset))

    @precondition(lambda self: self._open)
    @rule(index=st.integers(0, MAX_OPEN), offset=OFFSETS, size=SIZES)
    def handle_read(self, index: int, offset: int, size: int) -> None:
        self._handle(index, lambda fs, fd: fs.pread(fd, size, offset))

    @precondition(lambda self: self._open)
    @rule(index=st.integers(0, MAX_OPEN), length=OFFSETS)
    def handle_truncate(self, index: int, length: int) -> None:
        self._handle(index, lambda fs, fd: fs.ftruncate(fd, length))

    @precondition(lambda self: self._open)
    @rule(index=st.integers(0, MAX_OPEN))
    def handle_stat(self, index: int) -> None:
        self._handle(index, lambda fs, fd: _visible(fs.fstat(fd)))

    @precondition(lambda self: self._open)
    @rule(index=st.integers(0, MAX_OPEN))
    def handle_fsync(self, index: int) -> None:
        self._handle(index, lambda fs, fd: fs.fsync(fd))

    @precondition(lambda self: self._open)
    @rule(index=st.integers(0, MAX_OPEN))
    def handle_close(self, index: int) -> None:
        model_fd, view, fd = self._open.pop(index % len(self._open))
        self._model.close(model_fd)
        view.close(fd)

    # ------------------------------------------------------------------ everything

    @rule()
    def compare_trees(self) -> None:
        self._both(tree)

    def teardown(self) -> None:
        try:
            if self._views:
                for model_fd, view, fd in self._open:
                    self._model.close(model_fd)
                    view.close(fd)
                expected = tree(self._model)
                for view in self._views:
                    assert tree(view) == expected
        finally:
            self._cleanup.close()


def _outcome(operation: Callable[[Fs], object], fs: Fs) -> Outcome:
    try:
        return ("gives", operation(fs))
    except OSError as error:
        return ("errno", errno.errorcode[error.errno or 0])


def _shown(outcome: Outcome) -> str:
    text = repr(outcome[1])
    return f"{outcome[0]} {text[:300]}{'...' if len(text) > 300 else ''}"


def machine_for(
    name: str, make_fs: Callable[[], AbstractContextManager[list[Fs]]], *, names_stay_while_open: bool = False
) -> type[Comparison]:
    """Return a state machine class for the file systems that `make_fs` provides."""
    return type(name, (Comparison,), {"make_fs": staticmethod(make_fs), "names_stay_while_open": names_stay_while_open})
