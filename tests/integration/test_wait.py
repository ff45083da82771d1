"""`-o wait=SECONDS`: programs wait for servers to return, can be ended at once, and block no other program.

Creating a name holds the kernel's lock on its folder, on any file system, so each program uses a folder of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.mounts import Grid, Mount, environment, eventually, is_mounted, program, within
from support.servers import start_all
from support.trees import content

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0
WAIT_S = 25
"""Longer than any test takes, so that whatever ends has another reason."""
BINDINGS = pytest.mark.parametrize("binding", ["kernel", "fusepy"])
SIZE = 1 << 20


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    with Grid(tmp_path_factory.mktemp("wait")) as grid:
        yield grid


@pytest.fixture
def grid(servers: Grid, tmp_path: Path) -> Iterator[Grid]:
    """The same four servers for all tests; each test has its own mounts and folder."""
    servers.folder = tmp_path
    try:
        yield servers
    finally:
        servers.servers.restore()
        for mount in servers.mounts:
            mount.end()
        servers.mounts.clear()


FOLDERS = ("a", "b", "c")


def waiting_mount(grid: Grid, binding: str = "kernel", wait_s: float = WAIT_S) -> Mount:
    """Mount with a file that is incomplete when DFS1 and DFS2 are gone, and three folders."""
    mount = grid.mount("mnt", ["-o", f"binding={binding},wait={wait_s:g}"])
    for path in mount.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    (mount.path / "old").write_bytes(content(SIZE))
    for name in FOLDERS:
        (mount.path / name).mkdir()
    mount.remount()
    for name in FOLDERS:
        assert (mount.path / name).is_dir()
    return mount


def kill(grid: Grid, *numbers: int) -> None:
    """Kill servers, and wait until the mounts have noticed."""
    for number in numbers:
        grid.servers[number].kill()
    for mount in grid.mounts:
        for number in numbers:
            missed = f"DFS{number} (127.0.0.1:{grid.servers[number].port}) does not answer"
            eventually(lambda mount=mount, missed=missed: missed in mount.log.read_text(), missed, DEADLINE_S)  # type: ignore[misc]


def start(grid: Grid, *numbers: int) -> None:
    start_all([grid.servers[number] for number in numbers])


def waits(mount: Mount, what: str) -> None:
    """Wait until the mount has logged that this operation lacks servers."""
    eventually(lambda: what in mount.log.read_text(), f"the mount waits: {what}", DEADLINE_S)


def python(script: str, *arguments: str | int | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stderr=subprocess.PIPE)


MAKE = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); os.mkdir(sys.argv[1])"
READ = "import sys; data = open(sys.argv[1], 'rb').read(); assert len(data) == int(sys.argv[2])"


@BINDINGS
def test_who_writes_and_who_reads_goes_on_when_servers_return_and_nothing_is_written_twice(
    grid: Grid, binding: str
) -> None:
    mount = waiting_mount(grid, binding)
    kill(grid, 1, 2)

    def append() -> None:
        with (mount.path / "a" / "log").open("ab", buffering=0) as log:
            for number in range(50):
                assert log.write(b"%04d\n" % number) == 5

    with ThreadPoolExecutor(4) as programs:
        work = [
            programs.submit(append),
            programs.submit((mount.path / "b" / "folder").mkdir),
            programs.submit((mount.path / "c" / "new").write_bytes, content(3 * SIZE)),
            programs.submit((mount.path / "old").read_bytes),
        ]
        waits(mount, "segment")
        waits(mount, "mkdir")
        assert not any(each.done() for each in work)
        start(grid, 1, 2)
        begun = time.monotonic()
        for each in work:
            each.result(DEADLINE_S)
        assert time.monotonic() - begun < WAIT_S / 3, "at once"
    assert work[3].result() == content(SIZE)
    mount.remount()
    assert (mount.path / "a" / "log").read_bytes() == b"".join(b"%04d\n" % number for number in range(50))
    assert (mount.path / "c" / "new").read_bytes() == content(3 * SIZE)
    assert (mount.path / "b" / "folder").is_dir()


@pytest.mark.parametrize(
    ("binding", "number"), [("kernel", signal.SIGTERM), ("kernel", signal.SIGKILL), ("fusepy", signal.SIGTERM)]
)
def test_a_program_that_waits_is_ended_by_a_signal(grid: Grid, binding: str, number: int) -> None:
    mount = waiting_mount(grid, binding)
    kill(grid, 1, 2)
    reader = python(READ, mount.path / "old", SIZE)
    writer = subprocess.Popen(["cp", sys.executable, mount.path / "a" / "copy"], stderr=subprocess.PIPE)
    maker = python(MAKE, mount.path / "b" / "made")
    try:
        waits(mount, "segment")
        waits(mount, "create")
        waits(mount, "mkdir")
        for each in (reader, writer):
            each.send_signal(number)
        maker.send_signal(signal.SIGINT)
        for each in (reader, writer, maker):
            within(WAIT_S / 2, "it ends", each.wait)
        assert (reader.returncode, writer.returncode) == (-number, -number)
        assert b"KeyboardInterrupt" in maker.communicate(timeout=DEADLINE_S)[1]
    finally:
        for each in (reader, writer, maker):
            each.kill()
            each.communicate(timeout=DEADLINE_S)


def test_a_child_that_ends_or_a_window_that_changes_is_no_reason_to_stop_waiting(grid: Grid) -> None:
    mount = waiting_mount(grid)
    kill(grid, 1, 2)
    handled = "import signal; [signal.signal(n, lambda *_: None) for n in (signal.SIGCHLD, signal.SIGWINCH)];"
    reader = python(handled + READ, mount.path / "old", SIZE)
    maker = python(handled + "import os, sys; os.mkdir(sys.argv[1])", mount.path / "b" / "made")
    programs = reader, maker
    try:
        waits(mount, "segment")
        waits(mount, "mkdir")
        for number in (signal.SIGWINCH, signal.SIGCHLD):
            for each in programs:
                each.send_signal(number)
        for each in programs:
            with pytest.raises(subprocess.TimeoutExpired):
                each.wait(1.0)
        start(grid, 1, 2)
        for each in programs:
            _, complaint = each.communicate(timeout=DEADLINE_S)
            assert (each.returncode, complaint) == (0, b"")
    finally:
        for each in programs:
            each.kill()
            each.communicate(timeout=DEADLINE_S)


WRITTEN = b"x" * 1000
HOLD = """
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(file, b"x" * 1000)
print("written", flush=True)
if sys.stdin.readline() == "exit\\n":
    os._exit(3)
try:
    os.close(file)
except OSError as error:
    sys.exit(error.errno)
"""
"""A program that writes a file and holds it open until it is told to exit or to close it."""


MAP = """
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
mapping = mmap.mmap(file, 4096)
print("mapped", flush=True)
sys.stdin.readline()
mapping[:1000] = b"x" * 1000
for _ in range(2):
    try:
        mapping.flush()
    except OSError as error:
        print(error.errno, flush=True)
os._exit(0)
"""
"""A program that writes to a file through a mapping when told to, and calls msync() twice."""


@contextlib.contextmanager
def unsaved(*paths: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start programs that have written these files and hold them open. With `commit=60` nothing is saved
    automatically."""
    pipe = subprocess.PIPE
    holders = [subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=pipe, stdout=pipe) for path in paths]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"written\n"
        yield holders
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate(timeout=DEADLINE_S)


def tell(holder: subprocess.Popen[bytes], what: bytes) -> None:
    assert holder.stdin is not None
    holder.stdin.write(what + b"\n")
    holder.stdin.flush()


def test_data_is_saved_later_if_no_program_was_told_that_close_failed(grid: Grid) -> None:
    """A program that is killed, also while its close() waits, or that exits without a close(), ends at once and is told
    of nothing: its data is saved later. If a program was told that its close() failed, its data is discarded. Data
    written through a mapping after the servers went away is not: each msync() fails, and the data is saved later."""
    waiting = grid.mount("waiting", ["-o", f"commit=60,wait={WAIT_S}"])
    plain = grid.mount("plain", ["-o", "commit=60"])
    names = ["killed", "closing", "exits", "heard"]
    (plain.path / "mapped").write_bytes(b"y" * 4096)
    mapper = subprocess.Popen(
        [sys.executable, "-c", MAP, plain.path / "mapped"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert mapper.stdout is not None
    assert mapper.stdout.readline() == b"mapped\n"
    with unsaved(*(waiting.path / name for name in names[:3]), plain.path / names[3]) as holders:
        kill(grid, 1, 2)
        killed, closing, exits, heard = holders
        assert mapper.communicate(b"go on\n", DEADLINE_S)[0] == b"%d\n" % errno.EROFS * 2
        tell(closing, b"close")
        tell(heard, b"close")
        tell(exits, b"exit")
        waits(waiting, "flush")
        for holder in (killed, closing):
            holder.kill()
        assert [within(DEADLINE_S / 3, "it is gone", holder.wait) for holder in holders] == [-9, -9, 3, errno.EROFS]
        waits(waiting, "and others: the last writes are not saved yet")  # saving in the background has failed
        start(grid, 1, 2)
        waits(waiting, "unsaved data is being saved again")
    eventually(
        lambda: [(plain.path / name).read_bytes() for name in names] == [*[WRITTEN] * 3, b""],
        "all is saved",
        DEADLINE_S,
    )
    eventually(lambda: (waiting.path / "mapped").read_bytes() == WRITTEN + b"y" * 3096, "the mapping too", DEADLINE_S)


def test_a_lazy_unmount_without_servers_ends_in_time_and_keeps_what_was_unsaved(grid: Grid) -> None:
    """The mount ends when the last program has ended, which is killed here in the middle of a file."""
    mount = grid.mount("lazy", ["-o", "unmount_timeout=1,commit=60"])
    with unsaved(mount.path / "f") as (holder,):
        kill(grid, 1, 2, 3, 4)
        subprocess.run(["fusermount3", "-u", "-z", mount.path], check=True, timeout=DEADLINE_S)
        assert not is_mounted(mount.path)
        os.kill(mount.pid, 0)  # still serves the program
        holder.kill()
        within(DEADLINE_S / 3, "the mount's process ends", mount.wait)
    assert "1 file (1000) could not be saved" in mount.log.read_text()


WRITE_UNDER_A_LOCK = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX)
os.write(file, b"new")
print("written", flush=True)
sys.stdin.readline()
os.close(file)
"""
READ_UNDER_A_LOCK = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
print("open", flush=True)
while True:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except OSError:
        time.sleep(0.01)
print(os.read(file, 3), flush=True)
"""


def test_a_close_that_waits_keeps_its_locks_until_the_data_is_saved(grid: Grid) -> None:
    """A program that gets the lock on another mount sees what was written under it."""
    first, second = (grid.mount(name, ["-o", f"wait={WAIT_S},commit=60"]) for name in ("first", "second"))
    (first.path / "data").write_bytes(b"old")
    pipe = subprocess.PIPE
    begun: list[subprocess.Popen[bytes]] = []
    try:
        for script, mount in ((WRITE_UNDER_A_LOCK, first), (READ_UNDER_A_LOCK, second)):
            command = [sys.executable, "-c", script, mount.path / "data"]
            begun.append(subprocess.Popen(command, stdin=pipe, stdout=pipe))
            stdout = begun[-1].stdout
            assert stdout is not None
            assert stdout.readline()  # the writer must have the lock before the reader begins
        writer, reader = begun
        kill(grid, 1, 2)
        assert writer.stdin is not None
        writer.stdin.write(b"close\n")
        writer.stdin.flush()
        waits(first, "flush")
        assert writer.poll() is None
        assert reader.poll() is None
        start(grid, 1, 2)
        assert reader.communicate(timeout=DEADLINE_S)[0] == b"b'new'\n"
        assert writer.wait(DEADLINE_S) == 0
    finally:
        for each in begun:
            each.kill()
            each.communicate(timeout=DEADLINE_S)


def test_any_number_of_programs_may_wait_and_the_others_go_on(grid: Grid) -> None:
    """Far more programs wait than the mount has threads for requests."""
    mount = waiting_mount(grid)
    paths = [mount.path / "a" / f"{number}" for number in range(50)]
    for path in paths:
        path.write_bytes(b"")
    kill(grid, 1, 2)
    with ThreadPoolExecutor(100) as programs:
        work = [programs.submit(path.chmod, 0o600) for path in paths]
        work += [programs.submit((mount.path / "old").read_bytes) for _ in range(50)]
        waits(mount, "setattr")
        waits(mount, "segment")
        assert within(DEADLINE_S / 3, "a stat", (mount.path / "b").stat).st_nlink == 2
        assert within(DEADLINE_S / 3, "a listing", lambda: list((mount.path / "b").iterdir())) == []
        refused = subprocess.run(
            [*program("dfsmount"), "-u", str(mount.path)],
            capture_output=True,
            timeout=DEADLINE_S,
            env=environment(),
            check=False,
            cwd=grid.folder,
        )
        assert b"in use" in refused.stderr
        start(grid, 1, 2)
        for each in work:
            each.result(DEADLINE_S)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)


def test_a_mount_that_is_told_to_end_lets_everybody_go(grid: Grid) -> None:
    mount = waiting_mount(grid)
    kill(grid, 1, 2)
    readers = [python(READ, mount.path / "old", SIZE) for _ in range(3)]
    try:
        waits(mount, "segment")
        os.kill(mount.pid, signal.SIGTERM)
        for reader in readers:
            within(DEADLINE_S, "it gets an error", reader.wait)
            assert reader.returncode == 1
        eventually(lambda: not is_mounted(mount.path), "it is unmounted", DEADLINE_S)
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate(timeout=DEADLINE_S)


def test_after_its_time_an_operation_fails_as_without_waiting(grid: Grid) -> None:
    mount = waiting_mount(grid, wait_s=0.5)
    kill(grid, 1, 2)
    for operation, number in (
        ((mount.path / "a" / "d").mkdir, errno.EROFS),
        ((mount.path / "old").read_bytes, errno.EIO),
    ):
        begun = time.monotonic()
        with pytest.raises(OSError) as refused:
            within(DEADLINE_S, "it ends", operation)
        assert refused.value.errno == number
        assert time.monotonic() - begun >= 0.5


def test_names_that_were_made_while_the_servers_went_are_all_there_when_they_return(grid: Grid) -> None:
    """Whether answered early, in doubt or refused: programs notice nothing of it, and each name is made once."""
    mount = waiting_mount(grid)
    made: list[str] = []

    def make_names() -> None:
        while len(made) < 300:
            name = f"{len(made)}"
            (mount.path / "a" / name).mkdir()
            made.append(name)

    with ThreadPoolExecutor(1) as programs:
        maker = programs.submit(make_names)
        eventually(lambda: len(made) > 30, "it is at work", DEADLINE_S)
        kill(grid, 1, 2)
        count = len(made)
        start(grid, 1, 2)
        maker.result(DEADLINE_S)
    assert count < 300, "the call must have waited"
    folder = os.open(mount.path / "a", os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    assert "are lost" not in mount.log.read_text()
    mount.remount()
    assert sorted(path.name for path in (mount.path / "a").iterdir()) == sorted(made)
