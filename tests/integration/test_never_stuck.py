"""Hanging servers, a cut network, a client that was stopped: no operation waits long, and everything recovers.

Real servers, real mounts, SIGSTOP. The limits are the promised ones with tolerance for a busy machine; exact limits are
tested in virtual time (tests/unit/dfsfuse/log/test_never_stuck.py).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from support.mounts import Grid, Mount, environment, eventually, program, within
from support.ports import free_ports
from support.trees import content
from torture.network import Proxy

from dfsfuse.errors import UnavailableError
from dfsfuse.net.health.slowness import SLOW_S
from dfsfuse.net.stalls import LOG_S

pytestmark = pytest.mark.integration

ONE_HANGS_S = 4.0
"""The promise is 1 s on an otherwise idle machine."""
TWO_HANG_S = 10.0
"""The promise is 5 s."""
DEADLINE_S = 40.0


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        try:
            yield grid
        finally:
            for server in grid.servers:
                if server.is_running():
                    server.thaw()


def operations(mount: Mount, turn: str) -> dict[str, Callable[[], object]]:
    """Typical operations of a user, with new and old files."""
    large, folder = content(5 << 20, turn), mount.path / turn
    return {
        "make a folder": folder.mkdir,
        "write a large file": lambda: (folder / "large").write_bytes(large),
        "write a small file": lambda: (folder / "small").write_bytes(turn.encode()),
        "read what is here": lambda: _same((folder / "large").read_bytes(), large),
        "read what was there": lambda: _same((mount.path / f"old {turn}").read_bytes(), content(2 << 20, turn)),
        "list": lambda: _same(sorted(path.name for path in folder.iterdir()), ["large", "small"]),
        "room": lambda: os.statvfs(mount.path),
        "rename": lambda: (folder / "small").rename(folder / "other"),
        "delete": (folder / "other").unlink,
    }


def _same(found: object, expected: object) -> None:
    assert found == expected


def test_one_server_that_hangs_stops_nobody_and_two_refuse_soon(grid: Grid) -> None:
    mount = grid.mount()
    for server in grid.servers:
        (mount.path / f"old {server.name}").write_bytes(content(2 << 20, server.name))
    mount.remount()
    for server in (grid.servers[2], grid.servers[3]):
        server.freeze()
        longest_s = 0.0
        for what, operation in operations(mount, server.name).items():
            begun = time.monotonic()
            within(ONE_HANGS_S, f"with {server.name} hanging: {what}", operation)
            longest_s = max(longest_s, time.monotonic() - begun)
        print(f"{server.name} hangs: the longest operation took {longest_s:.2f} s")
        server.thaw()
        eventually(
            lambda: mount.log.read_text().count("does not answer") == mount.log.read_text().count("again\n"),
            "it is back",
        )
    for number in (1, 3):
        grid.servers[number].freeze()
    with pytest.raises(OSError) as refused:
        within(TWO_HANG_S, "refusing to write", lambda: (mount.path / "f").write_bytes(b"x"))
    assert refused.value.errno in (errno.EROFS, errno.EIO)
    with pytest.raises(OSError) as refused:
        within(TWO_HANG_S, "refusing again", lambda: (mount.path / "g").write_bytes(b"x"))
    assert refused.value.errno == errno.EROFS
    for server in grid.servers:
        data = within(TWO_HANG_S, "reading", (mount.path / f"old {server.name}").read_bytes)
        assert data == content(2 << 20, server.name), "two opposite servers must have everything"
    for number in (1, 3):
        grid.servers[number].thaw()
    eventually(lambda: _writes(mount, "after"), "writing again", DEADLINE_S)


def _make_folders(mount: Mount, answered: list[str], is_over: threading.Event) -> None:
    """Make folders one after another, and record those that were answered."""
    for number in itertools.count():
        if is_over.is_set():
            return
        (mount.path / f"d{number}").mkdir()
        answered.append(f"d{number}")


def test_when_all_servers_stall_nothing_that_was_answered_is_lost_and_nobody_gets_an_error(grid: Grid) -> None:
    """Everything but the mount stalls: it waits, as for a local disk, and goes on."""
    mount = grid.mount()
    (mount.path / "before").write_bytes(content(2 << 20))
    answered: list[str] = []
    is_over = threading.Event()
    make_folders = partial(_make_folders, mount, answered, is_over)

    def append() -> None:
        number = 0
        while not is_over.is_set():
            with (mount.path / "log").open("ab") as log:
                log.write(b"%06d\n" % number)
            number += 1

    def read() -> None:
        while not is_over.is_set():
            fresh = mount.path / "before"
            _same(fresh.read_bytes(), content(2 << 20))

    with ThreadPoolExecutor(3) as programs:
        running = [programs.submit(action) for action in (make_folders, append, read)]
        try:
            eventually(lambda: len(answered) > 20, "it is at work")
            for server in grid.servers:
                server.freeze()
            time.sleep(LOG_S + 3.0)  # nothing must happen during this time
            for server in grid.servers:
                server.thaw()
            count = len(answered)
            eventually(lambda: len(answered) > count + 20, "it goes on")
        finally:
            is_over.set()
        for action in running:
            action.result(DEADLINE_S)
    folder = os.open(mount.path, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    mount.remount()
    assert {path.name for path in mount.path.glob("d*")} == set(answered)
    lines = (mount.path / "log").read_bytes().split()
    assert lines == [b"%06d" % number for number in range(len(lines))]
    assert "are lost" not in mount.log.read_text()


MAKE = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); os.mkdir(sys.argv[1])"
EMPTY = "import os, sys; os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)"
CUT = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY)
print("open", flush=True)
sys.stdin.readline()
os.ftruncate(file, 5) if sys.argv[2] == "cut" else os.posix_fallocate(file, 0, 1 << 21)
"""
HOLD = """
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.write(file, b"unsaved")
print("written", flush=True)
sys.stdin.read()
"""


def python(script: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdin=pipe, stdout=pipe, stderr=pipe)


def _waits_for_the_mount(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process waits for an answer to a request, or for pages that are read ahead."""
    waits_in = Path(f"/proc/{process.pid}/wchan").read_text()
    return any(word in waits_in for word in ("fuse", "request_wait", "folio", "rwsem"))


def test_programs_that_wait_for_servers_that_stall_can_be_ended_and_nothing_is_lost(grid: Grid) -> None:
    """By Ctrl-C, SIGTERM or SIGKILL, at once; what they had begun is either done or not, but never done later."""
    mount = grid.mount()
    (mount.path / "old").write_bytes(content(2 << 20))
    sizes = {"cut": (5, 6), "grown": (6, 1 << 21), "emptied": (0, 6)}
    for name in sizes:
        (mount.path / name).write_bytes(b"before")
    for name in ("a", "b"):
        (mount.path / name).mkdir()
    mount.remount()
    holder = python(HOLD, mount.path / "held")
    assert holder.stdout is not None
    assert holder.stdout.readline()
    eventually(lambda: (mount.path / "held").read_bytes() == b"unsaved", "it is saved")
    resizers = [python(CUT, mount.path / name, name) for name in ("cut", "grown")]
    for each in resizers:
        assert each.stdout is not None
        assert each.stdout.readline()
    for server in grid.servers:
        server.freeze()
    reader = subprocess.Popen(["cat", mount.path / "old"], stdout=subprocess.DEVNULL)
    maker = python(MAKE, mount.path / "a" / "made")
    writer = subprocess.Popen(["cp", sys.executable, mount.path / "b" / "copy"], stderr=subprocess.DEVNULL)
    resizers.append(python(EMPTY, mount.path / "emptied"))
    programs = [reader, maker, writer, *resizers, holder]
    try:
        for each in resizers[:2]:
            assert each.stdin is not None
            each.stdin.write(b"go on\n")
            each.stdin.flush()
        for each in programs[:-1]:
            eventually(lambda each=each: _waits_for_the_mount(each), f"{each.args} waits")  # type: ignore[misc]
        reader.terminate()
        maker.send_signal(signal.SIGINT)
        writer.send_signal(signal.SIGINT)
        for each in resizers:
            each.terminate()
        holder.kill()
        begun = time.monotonic()
        for each in programs:
            within(SLOW_S / 2, "it ends", each.wait)
        print(f"all had ended after {time.monotonic() - begun:.1f} s")
        assert [each.returncode for each in (reader, writer, *resizers, holder)] == [
            -signal.SIGTERM, -signal.SIGINT, *[-signal.SIGTERM] * 3, -signal.SIGKILL
        ]  # fmt: skip
        assert maker.stderr is not None
        assert b"KeyboardInterrupt" in maker.stderr.read()
    finally:
        for server in grid.servers:
            server.thaw()
        for each in programs:
            each.kill()
            each.communicate(timeout=DEADLINE_S)
    within(DEADLINE_S, "writing", lambda: (mount.path / "a" / "after").write_bytes(b"x"))
    found = {name: (mount.path / name).stat().st_size for name in sizes}
    assert all(found[name] in sizes[name] for name in sizes), found
    before = {path.name for path in (mount.path / "a").iterdir()}
    assert before in ({"after"}, {"after", "made"})
    assert "are lost" not in mount.log.read_text()
    mount.remount()
    assert {path.name for path in (mount.path / "a").iterdir()} == before, "it must not be made later"
    assert {name: (mount.path / name).stat().st_size for name in sizes} == found
    assert all((mount.path / name).read_bytes().startswith(b"before"[: found[name]]) for name in sizes)
    assert (mount.path / "held").read_bytes() == b"unsaved"
    assert (mount.path / "old").read_bytes() == content(2 << 20)


def test_a_mount_that_is_told_to_end_while_servers_stall_ends_soon_and_keeps_what_is_unsaved(grid: Grid) -> None:
    mount = grid.mount(options=["-o", "unmount_timeout=0.5,commit=60"])
    holder = python(HOLD, mount.path / "held")
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        for server in grid.servers:
            server.freeze()
        begun = time.monotonic()
        os.kill(mount.pid, signal.SIGTERM)
        within(SLOW_S - 5.0, "it ends", mount.wait)
        print(f"the mount had ended after {time.monotonic() - begun:.1f} s")
    finally:
        holder.kill()
        holder.communicate(timeout=DEADLINE_S)
    assert "1 file (7) could not be saved" in mount.log.read_text()


def test_a_mount_that_stood_still_loses_nothing_that_it_had_answered(grid: Grid) -> None:
    """As with a suspended laptop or a paused machine, with no change by others meanwhile."""
    mount = grid.mount()
    is_over = threading.Event()
    answered: list[str] = []

    with ThreadPoolExecutor(1) as programs:
        running = programs.submit(_make_folders, mount, answered, is_over)
        try:
            eventually(lambda: len(answered) > 20, "it is at work")
            os.kill(mount.pid, signal.SIGSTOP)
            for server in grid.servers:
                server.freeze()
            time.sleep(LOG_S + 0.5)
            os.kill(mount.pid, signal.SIGCONT)
            for server in grid.servers:
                server.thaw()
            count = len(answered)
            eventually(lambda: len(answered) > count + 20, "it goes on")
        finally:
            os.kill(mount.pid, signal.SIGCONT)
            is_over.set()
        running.result(DEADLINE_S)
    mount.remount()
    assert {path.name for path in mount.path.glob("d*")} == set(answered)


def _writes(mount: Mount, name: str) -> bool:
    try:
        (mount.path / name).write_bytes(b"again")
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.EIO)
        return False
    return True


def test_a_busy_mount_with_all_servers_hanging_is_unmounted(grid: Grid) -> None:
    """`dfsmount -u` while a program writes: the program gets an error, the mount disappears, its process ends, and
    what it could not save is kept."""
    mount = grid.mount(options=["-o", "unmount_timeout=2"])
    (mount.path / "f").write_bytes(content(1 << 20))
    writer = subprocess.Popen(
        ["dd", "if=/dev/zero", f"of={mount.path / 'g'}", "bs=1M", "count=4000"], stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: (mount.path / "g").exists() and (mount.path / "g").stat().st_size > 8 << 20, "it writes")
        for server in grid.servers:
            server.freeze()
        done = subprocess.run(
            [*program("dfsmount"), "-u", str(mount.path)],
            capture_output=True,
            timeout=90,
            env=environment(),
            check=False,
            cwd=grid.folder,
        )
        if done.returncode != 0:  # reports that a program uses it
            assert b"use" in done.stderr or b"takes too long" in done.stderr  # waits for slow servers
            writer.terminate()
            within(DEADLINE_S, "the program ends", writer.wait)
            done = subprocess.run(
                [*program("dfsmount"), "-u", str(mount.path)],
                capture_output=True,
                timeout=90,
                env=environment(),
                check=False,
                cwd=grid.folder,
            )
        if done.returncode != 0:  # no server accepts what the program wrote
            assert done.returncode == UnavailableError.exit_code, done.stderr
            assert b"Kept in" in done.stderr
        assert not os.path.ismount(mount.path)
    finally:
        writer.kill()
        writer.wait(DEADLINE_S)


def test_a_mount_that_stood_still_sees_what_others_did_meanwhile(grid: Grid) -> None:
    """It held the lease, and was stopped for longer than that: it must not answer from its cache when it goes on."""
    sleeper, other = grid.mount("sleeper"), grid.mount("other")
    (sleeper.path / "d").mkdir()
    eventually((other.path / "d").is_dir, "the other mount sees the folder")
    for number in range(20):
        (sleeper.path / "d" / f"{number}").write_bytes(b"before")
    os.kill(sleeper.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        within(DEADLINE_S, "taking over", (other.path / "d" / "taken").mkdir)
        for number in range(20):
            within(DEADLINE_S, "writing", lambda number=number: (other.path / "d" / f"{number}").write_bytes(b"during"))
        (other.path / "d" / "19").unlink()
        eventually(lambda: time.monotonic() - begun > 3.0, "the lease has ended")
    finally:
        os.kill(sleeper.pid, signal.SIGCONT)
    with pytest.raises(FileExistsError):
        within(DEADLINE_S, "making the folder", (sleeper.path / "d" / "taken").mkdir)
    for number in range(19):
        assert within(DEADLINE_S, "reading", (sleeper.path / "d" / f"{number}").read_bytes) == b"during"
    with pytest.raises(FileNotFoundError):
        (sleeper.path / "d" / "19").read_bytes()
    within(DEADLINE_S, "writing", lambda: (sleeper.path / "d" / "20").write_bytes(b"after"))
    assert within(DEADLINE_S, "reading", (other.path / "d" / "20").read_bytes) == b"after"


@contextlib.contextmanager
def proxied(grid: Grid) -> Iterator[list[Proxy]]:
    """Put a proxy in front of each server, and return a client config that uses the proxies."""
    with contextlib.ExitStack() as running:
        proxies = []
        config = grid.client_config.read_text()
        for server, port in zip(grid.servers, free_ports(4), strict=True):
            proxy = Proxy(port, server.port)
            proxy.start()
            running.callback(proxy.close)
            proxies.append(proxy)
            config = config.replace(f"port: {server.port}", f"port: {port}")
        (grid.folder / "far").mkdir()
        grid.client_config = grid.folder / "far" / "dfc.yaml"
        grid.client_config.write_text(config)
        grid.client_config.chmod(0o600)
        yield proxies


def test_a_mount_whose_network_was_cut_comes_back_by_itself(grid: Grid) -> None:
    near = grid.mount("near")
    (near.path / "f").write_bytes(b"before")
    with proxied(grid) as proxies:
        far = grid.mount("behind the proxies")
        (far.path / "g").write_bytes(b"from there")
        assert (far.path / "f").read_bytes() == b"before"
        for proxy in proxies[:2]:
            proxy.is_open.clear()  # packets vanish
        for proxy in proxies[2:]:
            proxy.reject()  # something in between rejects connections
        within(DEADLINE_S, "taking over", lambda: (near.path / "f").write_bytes(b"meanwhile"))
        for what, operation in {
            "write": lambda: (far.path / "h").write_bytes(b"x"),
            "read": (far.path / "f").read_bytes,
            "rename": lambda: (far.path / "g").rename(far.path / "i"),
        }.items():
            with pytest.raises(OSError) as refused:
                within(DEADLINE_S, f"{what} through a cut", operation)
            assert refused.value.errno in (errno.EROFS, errno.EIO), what
        for proxy in proxies:
            proxy.rejects = False
            proxy.is_open.set()
        eventually(lambda: _writes(far, "h"), "writing again", DEADLINE_S)
        assert within(DEADLINE_S, "reading", (far.path / "f").read_bytes) == b"meanwhile"
        assert within(DEADLINE_S, "reading", (near.path / "h").read_bytes) == b"again"
        names = {path.name for path in near.path.iterdir()}
        assert names == {path.name for path in far.path.iterdir()}
        assert len(names & {"g", "i"}) == 1, "the rename was made or was not: never both names, never none"
        far.unmount()
