"""The kernel binding under the real kernel, with a small file system in memory that other processes use.

The file system runs in a process of its own (`support.memory_fs`), so that a test that hangs can end it. Every wait has
a deadline; every mount is taken away, and every process ended by its pid.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from support.memory_fs import FLAGS, MemoryFs
from support.mounts import eventually, is_mounted, unmount, within
from support.servers import REPOSITORY

from dfsfuse.fusekernel import mounting
from dfsfuse.fusekernel.negotiation import Settings
from dfsfuse.fusekernel.session import Session

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DEADLINE_S = 20.0
NOBODY = 65534
MIB = 1 << 20
PROGRAM = REPOSITORY / "tests/support/memory_fs.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}
libc = ctypes.CDLL(None, use_errno=True)


class Served:
    """A process that serves a mount."""

    def __init__(self, path: Path, *words: str) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(path), *words],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            text=True,
        )
        assert self._line() == "mounted"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return within(DEADLINE_S, "a word of the file system", self.process.stdout.readline).strip()

    def ended(self) -> None:
        """It ends by itself, and cleanly."""
        assert self._line() == "destroyed 1"
        assert self.process.wait(DEADLINE_S) == 0

    def end(self) -> None:
        """Whatever state it is in."""
        unmount(self.path)
        self.process.kill()
        with self.process:
            self.process.wait(DEADLINE_S)


@contextmanager
def served(path: Path, *words: str) -> Iterator[Served]:
    path.mkdir(parents=True, exist_ok=True)
    file_system = Served(path, *words)
    try:
        yield file_system
    finally:
        file_system.end()


@pytest.fixture
def fs(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "mount") as file_system:
        yield file_system


@pytest.fixture
def root(fs: Served) -> Path:
    return fs.path


# ---------------------------------------------------------------------- data


def test_data_of_many_sizes_comes_back(root: Path) -> None:
    for size in (0, 1, 4095, 4097, MIB, MIB + 1, 9 * MIB + 3):
        data = random.Random(size).randbytes(size)
        (root / "f").write_bytes(data)
        assert (root / "f").read_bytes() == data
        with (root / "f").open("rb") as file:
            file.seek(size // 2)
            assert file.read() == data[size // 2 :]
    (root / "f").write_bytes(b"short")
    assert (root / "f").read_bytes() == b"short"


def test_large_writes_at_the_end(root: Path) -> None:
    descriptor = os.open(root / "f", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        assert os.write(descriptor, bytes(MIB)) == MIB
        assert os.write(descriptor, b"x" * MIB) == MIB
        assert os.pread(descriptor, 2 * MIB, 0) == bytes(MIB) + b"x" * MIB
    finally:
        os.close(descriptor)


def test_a_mapping_is_read_and_written(root: Path) -> None:
    (root / "f").write_bytes(bytes(100_000))
    with (root / "f").open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[50_000:50_005] = b"hello"
        view.flush()
    assert (root / "f").read_bytes()[49_999:50_006] == b"\0hello\0"


def test_holes(root: Path) -> None:
    descriptor = os.open(root / "f", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(descriptor, b"x" * 4096, 40_960)
        os.ftruncate(descriptor, 81_920)
        assert os.lseek(descriptor, 0, os.SEEK_DATA) == 40_960
        assert os.lseek(descriptor, 40_960, os.SEEK_HOLE) == 45_056
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(descriptor, 45_056, os.SEEK_DATA)
        punch_and_keep = 3
        assert libc.fallocate(descriptor, punch_and_keep, ctypes.c_long(40_960), ctypes.c_long(4096)) == 0
        assert os.pread(descriptor, 81_920, 0) == bytes(81_920)
        os.posix_fallocate(descriptor, 0, 100_000)
        assert os.fstat(descriptor).st_size == 100_000
    finally:
        os.close(descriptor)


def test_extended_attributes(root: Path) -> None:
    (root / "f").touch()
    value = random.Random(1).randbytes(60_000)
    os.setxattr(root / "f", "user.large", value)
    os.setxattr(root / "f", "user.empty", b"", os.XATTR_CREATE)
    assert os.getxattr(root / "f", "user.large") == value
    assert sorted(os.listxattr(root / "f")) == ["user.empty", "user.large"]
    with pytest.raises(FileExistsError):
        os.setxattr(root / "f", "user.empty", b"x", os.XATTR_CREATE)
    os.removexattr(root / "f", "user.large")
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(root / "f", "user.large")


def test_programs_side_by_side(root: Path) -> None:
    def work(number: int) -> None:
        folder = root / str(number)
        folder.mkdir()
        noise = random.Random(number)
        for turn in range(30):
            data = noise.randbytes(noise.randrange(200_000))
            (folder / "new").write_bytes(data)
            (folder / "new").rename(folder / str(turn % 5))
            assert (folder / str(turn % 5)).read_bytes() == data
            assert len(list(folder.iterdir())) == min(turn + 1, 5)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))


# ---------------------------------------------------------------------- names


def test_hard_links_are_one_inode_with_one_cache(root: Path) -> None:
    (root / "a").write_bytes(b"first")
    (root / "b").hardlink_to(root / "a")
    a, b = (root / "a").stat(), (root / "b").stat()
    assert (a.st_ino, a.st_nlink) == (b.st_ino, 2)
    with (root / "a").open("r+b", buffering=0) as one, (root / "b").open("rb", buffering=0) as other:
        assert other.read() == b"first"
        one.write(b"FIRST and more")
        assert os.pread(other.fileno(), 100, 0) == b"FIRST and more"
        assert os.fstat(other.fileno()).st_size == 14
    (root / "a").rename(root / "c")
    (root / "b").unlink()
    assert ((root / "c").stat().st_ino, (root / "c").stat().st_nlink) == (a.st_ino, 1)


def test_everything_that_has_a_name(root: Path) -> None:
    (root / "d").mkdir(mode=0o700)
    (root / "d/link").symlink_to("x" * 4095)
    os.mkfifo(root / "fifo", 0o640)
    assert os.readlink(root / "d/link") == "x" * 4095  # noqa: PTH115
    assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)
    assert (root / "d").stat().st_nlink == 2
    os.utime(root / "fifo", ns=(1_234_567_890_123_456_789, -1_000_000_001))
    times = (root / "fifo").stat()
    assert (times.st_atime_ns, times.st_mtime_ns) == (1_234_567_890_123_456_789, -1_000_000_001)
    with pytest.raises(OSError, match="not empty"):
        (root / "d").rmdir()
    (root / ("n" * 255)).touch()
    with pytest.raises(OSError, match="too long"):
        (root / ("n" * 256)).touch()
    assert os.statvfs(root).f_namemax == 255


def renameat2(old: Path, new: Path, flags: int) -> None:
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_rename_with_flags(root: Path) -> None:
    noreplace, exchange = 1, 2
    (root / "a").write_bytes(b"a")
    (root / "d").mkdir()
    (root / "d/b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        renameat2(root / "a", root / "d/b", noreplace)
    renameat2(root / "a", root / "d/b", exchange)
    assert ((root / "a").read_bytes(), (root / "d/b").read_bytes()) == (b"b", b"a")
    renameat2(root / "a", root / "c", noreplace)
    assert (root / "c").read_bytes() == b"b"


def test_a_folder_of_ten_thousand(root: Path) -> None:
    names = {f"file-{number:05d}" for number in range(10_000)}
    for name in names:
        os.mknod(root / name)
    with os.scandir(root) as entries:
        inodes = {entry.name: entry.inode() for entry in entries}
    assert inodes.keys() == names
    assert {entry.name: entry.stat().st_ino for entry in os.scandir(root)} == inodes
    assert len(set(inodes.values())) == 10_000


def test_an_unlinked_file_lives_until_it_is_closed(root: Path) -> None:
    with (root / "f").open("w+b", buffering=0) as file:
        file.write(b"still here")
        (root / "f").unlink()
        assert list(root.iterdir()) == []
        assert os.fstat(file.fileno()).st_nlink == 0
        assert os.pread(file.fileno(), 100, 0) == b"still here"


# ---------------------------------------------------------------------- locks

LOCKER = """
import fcntl, os, sys, time
kind, path = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
print("begun", flush=True)
(fcntl.flock if kind == "flock" else fcntl.lockf)(fd, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


class Locker:
    """A process that waits for a lock and keeps it."""

    def __init__(self, kind: str, path: Path, opened: ExitStack) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOCKER, kind, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        opened.callback(self.end)
        self.says("begun")

    def says(self, word: str) -> None:
        assert self.process.stdout is not None
        assert within(DEADLINE_S, word, self.process.stdout.readline).strip() == word

    def end(self) -> None:
        with self.process:
            self.process.kill()
            self.process.wait(DEADLINE_S)


def waiting(path: Path) -> int:
    return int(os.getxattr(path, "user.waiting"))


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_a_waiting_lock_ends_with_its_process(root: Path, kind: str, ending: signal.Signals) -> None:
    path = root / "f"
    path.touch()
    with ExitStack() as opened:
        holder = Locker(kind, path, opened)
        holder.says("locked")
        killed, patient = Locker(kind, path, opened), Locker(kind, path, opened)
        eventually(lambda: waiting(path) == 2, "two wait")
        killed.process.send_signal(ending)
        killed.process.wait(DEADLINE_S)
        eventually(lambda: waiting(path) == 1, "one of them has gone")
        holder.process.kill()
        patient.says("locked")
        patient.end()
        with path.open("r+b") as file:
            within(DEADLINE_S, "the lock is free", lambda: fcntl.flock(file, fcntl.LOCK_EX))
            within(DEADLINE_S, "the lock is free", lambda: fcntl.lockf(file, fcntl.LOCK_EX))


def test_many_waiting_locks_hold_up_nobody_else(root: Path) -> None:
    """More wait than there are threads in the file system."""
    path = root / "f"
    path.touch()
    script = (
        "import fcntl, os, sys, threading\n"
        "def wait():\n"
        "    fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "    fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "    fcntl.flock(fd, fcntl.LOCK_UN)\n"
        "threads = [threading.Thread(target=wait) for _ in range(60)]\n"
        "[t.start() for t in threads]\n"
        "[t.join() for t in threads]\n"
    )
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with subprocess.Popen([sys.executable, "-c", script, str(path)]) as others:
            try:
                eventually(lambda: waiting(path) == 60, "sixty wait")
                (root / "other").write_bytes(b"goes on")
                assert (root / "other").read_bytes() == b"goes on"
                fcntl.flock(file, fcntl.LOCK_UN)
                assert others.wait(DEADLINE_S) == 0
            finally:
                others.kill()


def test_ranges_and_the_rule_of_any_close(root: Path) -> None:
    path = root / "f"
    path.touch()
    probe = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "try:\n"
        "    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, int(sys.argv[3]), int(sys.argv[2]))\n"
        "except BlockingIOError:\n"
        "    sys.exit(3)\n"
    )

    def is_free(start: int, length: int) -> bool:
        command = [sys.executable, "-c", probe, str(path), str(start), str(length)]
        return {0: True, 3: False}[subprocess.run(command, timeout=DEADLINE_S, check=False).returncode]

    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX, 10, 100)
        assert (is_free(0, 100), is_free(105, 1), is_free(110, 10)) == (True, False, True)
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 5, 102)
        assert (is_free(102, 5), is_free(100, 3)) == (True, False)
        os.close(os.open(path, os.O_RDONLY))
        assert is_free(0, 1000), "any close of the file by the process ends its locks"
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------------- mounting, unmounting, dying


def test_unmounting_what_is_in_use(fs: Served) -> None:
    with (fs.path / "f").open("w+b", buffering=0) as file:
        with pytest.raises(mounting.MountError, match=r"(?i)busy"):
            mounting.unmount(fs.path)
        mounting.unmount(fs.path, lazy=True)
        assert not is_mounted(fs.path)
        file.write(b"goes on")
        assert os.pread(file.fileno(), 100, 0) == b"goes on"
    fs.ended()


def test_unmounting(fs: Served) -> None:
    (fs.path / "f").touch()
    mounting.unmount(fs.path)
    fs.ended()
    with pytest.raises(mounting.MountError):
        mounting.unmount(fs.path)


def test_a_killed_file_system(fs: Served) -> None:
    descriptor = os.open(fs.path / "f", os.O_RDWR | os.O_CREAT)
    try:
        fs.process.kill()
        fs.process.wait(DEADLINE_S)
        for call in (lambda: os.write(descriptor, b"x"), fs.path.stat):
            with pytest.raises(OSError, match=r"not connected|abort"):
                within(DEADLINE_S, "an answer", call)
    finally:
        with suppress(OSError):  # so says close(), and closes
            os.close(descriptor)


def test_a_frozen_file_system_lets_go_of_those_who_are_killed(fs: Served) -> None:
    os.kill(fs.process.pid, signal.SIGSTOP)
    try:
        with subprocess.Popen(["stat", str(fs.path / "f")]) as process:
            process.kill()
            process.wait(DEADLINE_S)
    finally:
        os.kill(fs.process.pid, signal.SIGCONT)
    (fs.path / "f").write_bytes(b"awake again")


def test_a_user_mounts_with_the_helper() -> None:
    """As another user if we are root; else we are that user. Where /dev/fuse is root's alone, the helper says so."""
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    with ExitStack() as opened:
        folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/fusekernel.XXXXXX"], text=True).strip())
        opened.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        mountpoint = folder / "mount"
        mountpoint.mkdir()
        os.chown(mountpoint, user, user)
        if mounting.DEVICE.stat().st_mode & 0o006 != 0o006:
            words = within(DEADLINE_S, "a refusal", lambda: refusal(mountpoint, user))
            assert "MountError" in words
            assert "/dev/fuse: Permission denied" in words
            return
        fs = opened.enter_context(served(mountpoint, f"uid={user}"))
        mount = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(fs.path) in line)
        assert " fuse.memoryfs memory " in mount
        assert {"nosuid", "nodev"} <= set(mount.split()[5].split(","))
        script = 'echo hello > "$0/f" && cat "$0/f" && fusermount3 -u "$0"'
        done = subprocess.run(
            ["sh", "-c", script, str(fs.path)],
            user=user,
            group=user,
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
        assert done.stdout == b"hello\n"
        fs.ended()


def refusal(mountpoint: Path, user: int) -> str:
    command = [sys.executable, str(PROGRAM), str(mountpoint), f"uid={user}"]
    return subprocess.run(command, env=ENVIRONMENT, cwd="/", capture_output=True, text=True, check=False).stderr


def test_the_helper_unmounts_for_one_who_was_killed(tmp_path: Path) -> None:
    with served(tmp_path / "mount", "auto_unmount") as fs:
        (fs.path / "f").write_bytes(b"x")
        fs.process.kill()
        fs.process.wait(DEADLINE_S)
        eventually(lambda: not is_mounted(fs.path), "unmounted by the helper")


@pytest.mark.parametrize("auto_unmount", [False, True])
def test_what_cannot_be_mounted(tmp_path: Path, auto_unmount: bool) -> None:
    options = mounting.MountOptions(auto_unmount=auto_unmount)
    with pytest.raises(mounting.MountError, match="missing"):
        mounting.mount(tmp_path / "missing", options)
    with pytest.raises(mounting.MountError, match="no such mount flag: turbo"):
        mounting.mount(tmp_path, mounting.MountOptions(flags=frozenset({"turbo"})))


# ---------------------------------------------------------------------- in this process: notifications, cutting off


@contextmanager
def here(path: Path, files: MemoryFs) -> Iterator[Session]:
    """A session in this process. Whoever touches it must let go of the interpreter's lock: no mmap."""
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
        device = os.stat(root).st_dev  # noqa: PTH116
        setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        if mounting.set_read_ahead(root, 512):
            assert setting.read_text() == "512\n"
        else:
            assert os.geteuid() != 0 or not os.access(setting, os.W_OK)
    assert not mounting.set_read_ahead(tmp_path / "nowhere", 512)
