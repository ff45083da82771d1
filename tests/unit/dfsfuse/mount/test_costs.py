"""The number of the mount's Python functions that an operation calls, with a map in memory: the cost of the kernel's
requests without the log and the servers, which `tests/budget` counts. If a number grows, fix or explain it; if it
falls, write it down here.

The map in memory runs the work of each transaction twice. What ran earlier in this process does not count: the caches
of the sources are emptied, the clocks stand still, and no garbage is collected meanwhile, since that may cause calls
(closing a generator).
"""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Callable
from functools import _lru_cache_wrapper
from pathlib import Path
from types import FrameType
from typing import Final

import pytest
from support.memory_mounts import ROOT, MemoryMounts

import dfsfuse
from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.device import Device
from dfsfuse.fusekernel.dispatch import Dispatcher
from dfsfuse.fusekernel.values import Buffer
from dfsfuse.log.key_portions import read_in_portions
from dfsfuse.mount.kernel_caches import KernelCaches
from dfsfuse.mount.kernel_operations import KernelOperations

SOURCES: Final = str(Path(dfsfuse.__file__).parent)
BLOCK: Final = bytes(4096)
CREATE: Final = 349
APPEND: Final = 262
APPEND_AND_JOIN: Final = 359
LISTED_NAME: Final = 25
MAKE_FOLDER: Final = 104


class Nowhere(Device):
    """A device that stores the answer and sends nothing to the kernel."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.answered: bytes = b""

    def answer(self, unique: int, error: int, body: object) -> bool:
        assert not error, os.strerror(error)
        assert isinstance(body, bytes)
        self.answered = body
        return True


class Kernel:
    """Sends requests to the operations of a new mount, which has not decoded anything yet."""

    def __init__(self) -> None:
        empty_caches()
        operations = KernelOperations(MemoryMounts().mount(), entry_timeout_s=1.0, attributes_timeout_s=1.0)
        self._device = Nowhere()
        operations.caches = KernelCaches(lambda: None, self._device, 1.0, clock=lambda: 0.0)
        self._dispatcher = Dispatcher(operations, self._device)

    def ask(self, opcode: int, ino: int, body: Buffer = b"") -> bytes:
        header = wire.fuse_in_header
        message = header.pack(header.size + len(body), opcode, 2, ino, 0, 0, 42, 0, 0) + body
        self._dispatcher.handle(memoryview(message))
        return self._device.answered

    def make_folder(self, name: bytes) -> int:
        made = self.ask(wire.FUSE_MKDIR, ROOT, wire.fuse_mkdir_in.pack(0o755, 0) + name + b"\0")
        return int(wire.fuse_entry_out.unpack_from(made)[0])

    def create(self, folder: int, name: bytes, flags: int = os.O_WRONLY) -> tuple[int, int]:
        asked = wire.fuse_create_in.pack(flags | os.O_CREAT, stat.S_IFREG | 0o644, 0, 0) + name + b"\0"
        made = self.ask(wire.FUSE_CREATE, folder, asked)
        return wire.fuse_entry_out.unpack_from(made)[0], wire.fuse_open_out.unpack_from(made, wire.fuse_entry_out.size)[
            0
        ]

    def write(self, file: tuple[int, int], offset: int, data: bytes, flags: int = os.O_WRONLY) -> None:
        self.ask(wire.FUSE_WRITE, file[0], wire.fuse_write_in.pack(file[1], offset, len(data), 0, 0, flags, 0) + data)

    def close(self, file: tuple[int, int]) -> None:
        self.ask(wire.FUSE_FLUSH, file[0], wire.fuse_flush_in.pack(file[1], 0, 0, 7))
        self.ask(wire.FUSE_RELEASE, file[0], wire.fuse_release_in.pack(file[1], 0, 0, 7))

    def list(self, folder: int) -> None:
        handle = wire.fuse_open_out.unpack(self.ask(wire.FUSE_OPENDIR, folder, wire.fuse_open_in.pack(0, 0)))[0]
        self.ask(wire.FUSE_READDIRPLUS, folder, wire.fuse_read_in.pack(handle, 0, 1 << 20, 0, 0, 0, 0))
        self.ask(wire.FUSE_RELEASEDIR, folder, wire.fuse_release_in.pack(handle, 0, 0, 0))


def empty_caches() -> None:
    """Empty the caches of functions in the sources (`lru_cache`)."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == dfsfuse.__name__:
            for value in vars(module).values():
                if isinstance(value, _lru_cache_wrapper):
                    value.cache_clear()


def calls(action: Callable[[], object]) -> int:
    """Count the calls of functions in the sources, including resumed generators."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(SOURCES)

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()
    return count


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_what_ran_before_does_not_count() -> None:
    def make_and_list() -> int:
        kernel = Kernel()
        return calls(lambda: kernel.list(kernel.make_folder(b"f")))

    left: list[object] = [read_in_portions(len, [b"key"], 1)]
    next(left[0])  # type: ignore[call-overload]
    left.append(left)
    del left
    assert calls(lambda: [[] for _ in range(100_000)]) == 0, "enough objects to trigger a garbage collection"
    assert make_and_list() == make_and_list()


def test_a_small_file_created_written_and_closed(kernel: Kernel) -> None:
    def make(name: bytes) -> None:
        file = kernel.create(ROOT, name)
        kernel.write(file, 0, BLOCK)
        kernel.close(file)

    make(b"first")
    assert calls(lambda: make(b"second")) <= CREATE


def test_appending_costs_the_same_however_often_it_was_done(kernel: Kernel) -> None:
    file = kernel.create(ROOT, b"f", os.O_WRONLY | os.O_APPEND)

    def append() -> None:
        kernel.write(file, 0, bytes(100), os.O_WRONLY | os.O_APPEND)
        kernel.ask(wire.FUSE_FSYNC, file[0], wire.fuse_fsync_in.pack(file[1], 0, 0))

    found = [calls(append) for _ in range(120)][1:]
    joins = [cost for cost in found if cost > APPEND]
    assert found.count(APPEND) == len(found) - len(joins), "however many segments there are"
    assert len(joins) <= len(found) / 6
    assert max(joins) <= APPEND_AND_JOIN


def test_a_name_that_is_listed_with_its_attributes(kernel: Kernel) -> None:
    folders = {count: kernel.make_folder(b"%d" % count) for count in (20, 120)}
    for count, folder in folders.items():
        for number in range(count):
            kernel.close(kernel.create(folder, b"%d" % number))
    few, many = (calls(lambda folder=folder: kernel.list(folder)) for folder in folders.values())  # type: ignore[misc]
    assert (many - few) / 100 <= LISTED_NAME


def test_a_folder_that_is_made(kernel: Kernel) -> None:
    kernel.make_folder(b"first")
    assert calls(lambda: kernel.make_folder(b"second")) <= MAKE_FOLDER
