"""What only a mount can show, or where it deliberately differs from a plain folder: its own limits, and what it
refuses.

tests/conformance, which a plain folder passes too, covers the rest of POSIX. One mount with the kernel binding.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.mounts import Grid, Mount

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

OPTIONS = ("-o", "binding=kernel")
FILE_MAX_BYTES = 2**63 - 1
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def mount(grid: Grid) -> Mount:
    return grid.mount(options=OPTIONS)


@pytest.fixture
def root(mount: Mount, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for one test."""
    folder = mount.path / request.node.name
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def refusal(action: Callable[[], object]) -> str:
    """Return the name of the errno that the action fails with."""
    try:
        action()
    except OSError as error:
        return _name(error.errno or 0)
    return "done"


def _name(number: int) -> str:
    """Two names of errnos are the same number on Linux."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode[number]


def called(result: int) -> str:
    """Like `refusal`, for a call of the C library."""
    return "done" if result >= 0 else _name(ctypes.get_errno())


# ---------------------------------------------------------------- offsets


def test_the_last_byte_of_the_largest_file(root: Path) -> None:
    with (root / "f").open("w+b", buffering=0) as file:
        fd = file.fileno()
        assert os.pwrite(fd, b"end", FILE_MAX_BYTES - 3) == 3
        assert os.fstat(fd).st_size == FILE_MAX_BYTES
        assert os.pread(fd, 4, FILE_MAX_BYTES - 4) == b"\0end"
        assert os.lseek(fd, 0, os.SEEK_DATA) > 2**62
        os.fsync(fd)
        for offset in (FILE_MAX_BYTES - 1, FILE_MAX_BYTES):
            assert refusal(lambda offset=offset: os.pwrite(fd, b"xy", offset)) in ("done", "EFBIG", "EINVAL")  # type: ignore[misc]
        assert os.fstat(fd).st_size == FILE_MAX_BYTES
    assert (root / "f").stat().st_blocks * 512 < 1 << 20
    os.truncate(root / "f", 10)
    assert (root / "f").read_bytes() == bytes(10)
    os.truncate(root / "f", FILE_MAX_BYTES)
    assert (root / "f").stat().st_size == FILE_MAX_BYTES


# ---------------------------------------------------------------- attributes


def test_the_room_for_extended_attributes(root: Path) -> None:
    (root / "f").touch()
    os.setxattr(root / "f", "user.large", b"v" * 60_000)
    assert os.getxattr(root / "f", "user.large") == b"v" * 60_000
    assert refusal(lambda: os.setxattr(root / "f", "user.more", b"v" * 10_000)) == "ENOSPC"
    os.setxattr(root / "f", "user.large", b"small")
    for number in range(100):
        os.setxattr(root / "f", f"user.{number}", b"x" * 100)
    assert {f"user.{number}" for number in range(100)} <= set(os.listxattr(root / "f"))


def test_other_namespaces_are_refused_cleanly(root: Path) -> None:
    (root / "f").write_bytes(b"content")
    for name in ("security.capability", "trusted.x", "system.posix_acl_access", "system.posix_acl_default"):
        assert refusal(lambda name=name: os.setxattr(root / "f", name, b"x")) in ("EOPNOTSUPP", "EINVAL", "EPERM"), name  # type: ignore[misc]
        assert refusal(lambda name=name: os.getxattr(root / "f", name)) in ("ENODATA", "EOPNOTSUPP"), name  # type: ignore[misc]
    assert not [name for name in os.listxattr(root / "f") if not name.startswith("user.")]


def test_acls_are_refused_and_disturb_nobody(root: Path) -> None:
    """cp -a, ls -l and shutil.copy2 ask for ACLs; chmod sets the mode as usual."""
    (root / "f").write_bytes(b"content")
    entry = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + b"\xff" * 4
        for tag, permissions in ((1, 6), (4, 4), (32, 4))
    )
    assert refusal(lambda: os.setxattr(root / "f", "system.posix_acl_access", entry)) == "EOPNOTSUPP"
    subprocess.run(["cp", "-a", "f", "copy"], cwd=root, check=True, timeout=60)
    shutil.copy2(root / "f", root / "copied")
    listed = subprocess.run(["ls", "-l"], cwd=root, check=True, timeout=60, capture_output=True, text=True)
    assert listed.stderr == ""
    assert all(line.split()[0].endswith("-") for line in listed.stdout.splitlines()[1:]), "a + would mean an ACL"


# ---------------------------------------------------------------- what is refused


def test_flags_that_are_not_known_are_refused(root: Path) -> None:
    (root / "a").write_bytes(b"a")
    collapse, insert, unshare, exchange_and_whiteout = 8, 32, 64, 6
    here = os.fsencode(root)
    assert called(libc.renameat2(-100, here + b"/a", -100, here + b"/b", exchange_and_whiteout)) == "EINVAL"
    assert called(libc.renameat2(-100, here + b"/a", -100, here + b"/b", 64)) == "EINVAL"
    with (root / "a").open("r+b") as file:
        for mode in (collapse, insert, unshare, 128):
            length = ctypes.c_long(4096)
            assert called(libc.fallocate(file.fileno(), mode, ctypes.c_long(0), length)) == "EOPNOTSUPP"
        assert refusal(lambda: fcntl.ioctl(file.fileno(), 0x5401)) in ("ENOTTY", "ENOSYS")
    assert sorted(path.name for path in root.iterdir()) == ["a"]
    assert (root / "a").read_bytes() == b"a"


def test_devices_are_kept_and_not_opened(root: Path) -> None:
    """Without -o dev they are only names."""
    if os.geteuid() != 0:
        return
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert refusal(lambda: os.open(root / "null", os.O_RDWR)) == "EACCES"


# ---------------------------------------------------------------- what stays, and what is counted


def test_inodes_and_times_are_the_same_after_a_new_mount(mount: Mount) -> None:
    root = mount.path / "kept"
    root.mkdir()
    (root / "f").write_bytes(b"content")
    (root / "g").hardlink_to(root / "f")
    (root / "d").mkdir()
    (root / "s").symlink_to("f")
    os.mkfifo(root / "p")
    os.setxattr(root / "f", "user.a", b"1")
    (root / "f").read_bytes()

    def seen() -> dict[str, tuple[int, ...]]:
        found = {path.name: path.lstat() for path in root.iterdir()} | {".": mount.path.stat()}
        return {
            name: (
                *(each.st_ino, each.st_mode, each.st_nlink, each.st_uid, each.st_gid, each.st_size, each.st_blocks),
                *(each.st_atime_ns, each.st_mtime_ns, each.st_ctime_ns),
            )
            for name, each in found.items()
        }

    list(root.iterdir())  # this sets the folder's access time, and later listings do not
    before = seen()
    assert mount.unmount() == 0
    mount.mount()
    assert seen() == before
    assert before["f"] == before["g"]
    assert os.getxattr(root / "g", "user.a") == b"1"


def test_the_room_is_that_of_the_servers_disks(grid: Grid, root: Path) -> None:
    """Each byte is stored twice, and four servers share this disk."""
    disk, ours = os.statvfs(grid.folder), os.statvfs(root)
    assert ours.f_frsize * ours.f_blocks <= disk.f_frsize * disk.f_blocks / 2
    assert ours.f_frsize * ours.f_bavail == pytest.approx(disk.f_frsize * disk.f_bavail / 2, rel=0.2)
    assert ours.f_namemax == 255
    assert (ours.f_files, ours.f_ffree) == (0, 0), "no limit on files, as on btrfs"


def test_a_large_folder_is_listed_moved_and_removed(root: Path) -> None:
    """Run it with DFS_ENTRIES=100000 by hand; tests/unit/dfsfuse/namespace counts the requests."""
    count = int(os.environ.get("DFS_ENTRIES", "1000"))
    (root / "d").mkdir()
    for number in range(count):
        os.mknod(root / f"d/{number:06d}")
    names = {f"{number:06d}" for number in range(count)}
    listed = [entry.name for entry in os.scandir(root / "d")]
    assert len(listed) == count
    assert set(listed) == names
    (root / "e").mkdir()
    (root / "d").rename(root / "e/moved")
    assert (root / "e/moved/000000").exists()
    shutil.rmtree(root / "e")
    assert list(root.iterdir()) == []


def test_a_file_that_is_open_while_its_folder_goes(root: Path) -> None:
    (root / "d/e").mkdir(parents=True)
    with (root / "d/e/f").open("w+b", buffering=0) as file:
        file.write(b"here")
        shutil.rmtree(root / "d")
        assert os.pread(file.fileno(), 10, 0) == b"here"
        with suppress(OSError):
            file.write(b" still")
        assert os.pread(file.fileno(), 100, 0) == b"here still"


def test_a_local_file_that_is_made_afterwards_is_not_older(root: Path, tmp_path: Path) -> None:
    """Otherwise `make` would build it again."""
    for number in range(50):
        made, written = root / f"made {number}", root / "written"
        made.touch()
        os.utime(made)
        written.write_bytes(b"x")
        times = [path.stat().st_mtime_ns for path in (made, written)]
        local = tmp_path / str(number)
        local.touch()
        assert local.stat().st_mtime_ns >= max(times)


def test_data_written_by_a_write_only_descriptor_is_seen_by_earlier_readers(root: Path) -> None:
    """Such data bypasses the kernel's cache, in which the reader has the pages; also from memory that was never
    touched."""
    path = root / "f"
    path.write_bytes(b"a" * 100_000)
    with path.open("rb") as reader, path.open("r+b") as mapped, mmap.mmap(mapped.fileno(), 0) as mapping:
        assert reader.read() == b"a" * 100_000
        assert mapping[50_000:50_010] == b"a" * 10
        for number in range(20):
            text = b"%010d" % number
            with path.open("r+b") as writer:
                descriptor = os.open(path, os.O_WRONLY)
                os.pwrite(descriptor, text, 50_000)
                os.close(descriptor)
                assert os.pread(reader.fileno(), 10, 50_000) == mapping[50_000:50_010] == text
                assert os.pread(writer.fileno(), 10, 49_995) == b"aaaaa" + text[:5]
        descriptor = os.open(path, os.O_WRONLY)
        assert os.write(descriptor, bytes(3 << 20)) == 3 << 20
        os.close(descriptor)
        assert mapping[:] == bytes(100_000)
        assert path.read_bytes() == bytes(3 << 20)
    for copy in ("cp", "cat", "dd"):
        command = {"cp": f"cp {path} {root}/cp", "cat": f"cat {path} > {root}/cat", "dd": f"dd if={path} of={root}/dd"}
        subprocess.run(command[copy], shell=True, check=True, stderr=subprocess.DEVNULL)
        assert (root / copy).read_bytes() == bytes(3 << 20)
