"""Which of the options after -o reach mount(2), and the end of a mount over a fake /dev/fuse.
tests/integration/test_mount_by_kernel.py uses a real mount."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.fake_kernel import DEADLINE_S, FakeDevice
from support.memory_map import MemoryMap
from support.memory_mounts import MemoryMounts

from dfs_server.protocol.batches import Batch
from dfsfuse.fusekernel import mounting, wire
from dfsfuse.fusekernel.mounting import MountOptions
from dfsfuse.mount import options
from dfsfuse.mount.kernel_session import KernelSession, mount_options, write_size


def parsed(text: str, *, as_root: bool = False) -> MountOptions:
    return mount_options(options.parse(["binding=kernel", text], as_root=as_root).fuse)


def test_defaults() -> None:
    assert parsed("") == MountOptions(
        fsname="dfsfuse",
        subtype="dfs",
        default_permissions=True,
        max_read_bytes=1 << 20,
        flags=frozenset({"nosuid", "nodev"}),
    )
    assert parsed("", as_root=True).allow_other


def test_flags_are_passed_on() -> None:
    assert parsed("ro,noexec,noatime,sync,dirsync,suid,dev").flags == frozenset(
        "ro noexec noatime sync dirsync".split()
    )
    assert parsed("suid,nosuid").flags == frozenset({"nosuid", "nodev"})
    assert parsed("auto_unmount,fsname=mine,max_read=64K") == MountOptions(
        fsname="mine", subtype="dfs", default_permissions=True, max_read_bytes=65536, auto_unmount=True
    )


def test_write_requests_are_whole_pages() -> None:
    assert [write_size(wanted) for wanted in (0, 4096, 10_000, 1 << 20, 1 << 30)] == [
        4096,
        4096,
        8192,
        1 << 20,
        1 << 20,
    ]


class WaitingMap(MemoryMap):
    """A commit waits for servers until the mount is about to end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited = threading.Event()
        self.is_ending = threading.Event()

    def end_within(self, patience_s: float) -> None:
        super().end_within(patience_s)
        self.is_ending.set()

    def wait(self, _: Batch) -> None:
        self.is_waited.set()
        self.is_ending.wait(DEADLINE_S)


def test_operations_waiting_for_servers_are_bounded_once_a_lazy_unmount_is_complete(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No signal arrives, and the session ends only after those operations."""
    mounts, kernel = MemoryMounts(), FakeDevice()
    mounts.map = store = WaitingMap()
    monkeypatch.setattr(mounting, "mount", lambda place, _: mounting.Mount(place, kernel.descriptor))
    session = KernelSession(mounts.mount(), tmp_path, {}, wait_s=3600.0, unmount_timeout_s=7.0)
    store.before_commit = store.wait
    serving = threading.Thread(target=session.serve, args=(lambda: None,))
    serving.start()
    kernel.initialise()
    kernel.send(wire.FUSE_MKDIR, 1, wire.fuse_mkdir_in.pack(0o755, 0) + b"d\0")
    assert store.is_waited.wait(DEADLINE_S)
    kernel.unmount()
    assert store.is_ending.wait(DEADLINE_S), "the map has not been told"
    assert store.ends_within_s == 7.0
    serving.join(DEADLINE_S)
    assert not serving.is_alive()
    kernel.close()
