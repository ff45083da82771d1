"""The kernel binding under the real kernel, served by the test's own process: notifications, and cutting off."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.memory_fs import FLAGS, MemoryFs
from support.mounts import eventually, unmount, within
from support.served_memory_fs import DEADLINE_S

from dfsfuse.fusekernel import mounting
from dfsfuse.fusekernel.negotiation import Settings
from dfsfuse.fusekernel.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@contextmanager
def here(path: Path, files: MemoryFs) -> Iterator[Session]:
    """A session in this process. Accessing it must release the interpreter's lock, so mmap is not allowed."""
    path.mkdir()
    mount = mounting.mount(path, mounting.MountOptions(subtype="memoryfs"))
    session = Session(mount.descriptor, files, Settings(flags=FLAGS))
    session.negotiate()
    thread = threading.Thread(target=session.serve)
    thread.start()
    try:
        yield session
    finally:
        unmount(path)
        session.cut_off()
        thread.join(DEADLINE_S)
        mount.close()
        assert not thread.is_alive()


def size_of(path: Path) -> int:
    return within(DEADLINE_S, "stat", lambda: path.stat().st_size)


def test_the_kernel_forgets_what_it_is_told_to(tmp_path: Path) -> None:
    files, root = MemoryFs(), tmp_path / "mount"
    files.timeout_s = 1000.0
    with here(root, files) as session:
        (root / "f").write_bytes(b"12345")
        ino = (root / "f").stat().st_ino
        files.inodes[ino].data += b"6789"
        assert size_of(root / "f") == 5
        assert session.device.inval_inode(ino)
        assert size_of(root / "f") == 9
        assert (root / "f").read_bytes() == b"123456789"

        del files.inodes[1].names[b"f"]
        assert size_of(root / "f") == 9
        assert session.device.inval_entry(1, b"f")
        with pytest.raises(FileNotFoundError):
            size_of(root / "f")

        (root / "g").touch()
        gone = files.inodes[1].names.pop(b"g")
        assert session.device.delete(1, gone, b"g")
        with pytest.raises(FileNotFoundError):
            size_of(root / "g")
        assert not session.device.inval_inode(4711)
        assert not session.device.inval_entry(1, b"unknown")


def test_the_kernel_takes_back_all_lookups(tmp_path: Path) -> None:
    files, root = MemoryFs(), tmp_path / "mount"
    with here(root, files):
        for number in range(200):
            (root / str(number)).write_bytes(b"x")
        assert len(list(os.scandir(root))) == 200
        for number in range(200):
            (root / str(number)).unlink()
        eventually(lambda: list(files.inodes) == [1], "every inode was forgotten")
    assert files.destroyed == 1


def test_a_session_that_is_cut_off(tmp_path: Path) -> None:
    files, root = MemoryFs(), tmp_path / "mount"
    with here(root, files) as session:
        size_of(root)
        session.cut_off()
        with pytest.raises(OSError, match="not connected"):
            within(DEADLINE_S, "an answer", lambda: (root / "f").write_bytes(b"x"))


def test_read_ahead_is_set_where_that_is_allowed(tmp_path: Path) -> None:
    files, root = MemoryFs(), tmp_path / "mount"
    with here(root, files):
        number = os.stat(root).st_dev  # noqa: PTH116
        device = f"{os.major(number)}:{os.minor(number)}"
        setting = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
        if mounting.set_read_ahead(device, 512):
            assert setting.read_text() == "512\n"
        else:
            assert os.geteuid() != 0 or not os.access(setting, os.W_OK)
    assert not mounting.set_read_ahead("0:0", 512)
