"""The kernel binding under the real kernel: locks that programs wait for."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.mounts import eventually, within
from support.served_memory_fs import DEADLINE_S, served

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LOCKER = """
import fcntl, os, sys, time
kind, path = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
print("begun", flush=True)
(fcntl.flock if kind == "flock" else fcntl.lockf)(fd, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with served(tmp_path / "mount") as file_system:
        yield file_system.path


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


def test_many_waiting_locks_do_not_delay_other_requests(root: Path) -> None:
    """There are more waiting locks than threads in the file system."""
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
        assert is_free(0, 1000), "any close of the file by the process must end its locks"
    finally:
        os.close(descriptor)
