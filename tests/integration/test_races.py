"""Two mounts of one namespace, at the same moment, again and again: one order of things for both."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROUNDS: Final = 200
DEADLINE_S: Final = 60.0


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    options = ("-o", "binding=kernel")
    with Grid(tmp_path_factory.mktemp("grid")) as grid:
        yield grid.mount("one", options).path, grid.mount("other", options).path


def winners(mounts: tuple[Path, Path], attempt: Callable[[Path, int], None]) -> tuple[set[int], set[int]]:
    """Both mounts make the attempt in each round at once: the rounds that each has won."""
    barrier = threading.Barrier(2, timeout=DEADLINE_S)

    def contender(mount: Path) -> set[int]:
        won = set()
        for turn in range(ROUNDS):
            barrier.wait()
            with contextlib.suppress(FileExistsError):
                attempt(mount, turn)
                won.add(turn)
        return won

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(contender, mounts, timeout=DEADLINE_S)
    return one, other


def test_exclusive_creation_has_exactly_one_winner(mounts: tuple[Path, Path]) -> None:
    def attempt(mount: Path, turn: int) -> None:
        descriptor = os.open(mount / f"file{turn}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.write(descriptor, mount.name.encode())
        finally:
            os.close(descriptor)

    one, other = winners(mounts, attempt)
    assert one | other == set(range(ROUNDS))
    assert not one & other
    for turn in range(0, ROUNDS, 7):
        expected = b"one" if turn in one else b"other"
        assert [(mount / f"file{turn}").read_bytes() for mount in mounts] == [expected] * 2


def test_mkdir_has_exactly_one_winner(mounts: tuple[Path, Path]) -> None:
    one, other = winners(mounts, lambda mount, turn: (mount / f"folder{turn}").mkdir())
    assert one | other == set(range(ROUNDS))
    assert not one & other


@contextlib.contextmanager
def stale() -> Iterator[None]:
    """open() may be overtaken: between the kernel's look at the name and ours at the file, and again when it repeats
    the look. Then it says so; it never says that there is no such file."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise


def test_a_file_replaced_by_rename_is_never_missing_nor_mixed(mounts: tuple[Path, Path]) -> None:
    """Each version is of another length and all of one byte; versions are never seen to go back."""
    writer, reader = mounts
    versions = [bytes([turn % 251]) * (1 + turn * 997 % 300_000) for turn in range(ROUNDS)]
    numbers = {version: turn for turn, version in enumerate(versions)}
    assert len(numbers) == ROUNDS
    (writer / "page").write_bytes(versions[0])
    done = threading.Event()

    def replace() -> None:
        try:
            for version in versions[1:]:
                (writer / "page.new").write_bytes(version)
                (writer / "page.new").rename(writer / "page")
        finally:
            done.set()

    def read() -> list[int]:
        seen = []
        while not done.is_set():
            with stale():
                seen.append(numbers[(reader / "page").read_bytes()])
        return [*seen, numbers[(reader / "page").read_bytes()]]

    with ThreadPoolExecutor(2) as pool:
        replacing, reading = pool.submit(replace), pool.submit(read)
        replacing.result(DEADLINE_S)
        seen = reading.result(DEADLINE_S)
    assert seen == sorted(seen)
    assert seen[-1] == ROUNDS - 1


_APPEND: Final = """
import fcntl, os, sys
path, who, how = sys.argv[1:]
record = lambda turn: f"{who} {turn} {'x' * (turn * 37 % 5000)};".encode()
fd = os.open(path, os.O_WRONLY | os.O_CREAT | (0 if how == "fcntl" else os.O_APPEND), 0o644)
if how == "fcntl":
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
for turn in range(200):
    if how == "open":
        os.close(fd)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    assert os.write(fd, record(turn)) == len(record(turn))
    if how != "open" and turn % 10 == 0:
        os.fsync(fd)
os.close(fd)
"""


def append_at_once(log: str, contenders: list[tuple[Path, str]]) -> None:
    """Processes append to one file, 200 records each."""
    commands = [
        [sys.executable, "-c", _APPEND, str(mount / log), str(number), how]
        for number, (mount, how) in enumerate(contenders)
    ]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command)) for command in commands]
        assert [process.wait(DEADLINE_S) for process in processes] == [0] * len(contenders)


@pytest.mark.parametrize("how", ["kept", "fcntl", "open"])
def test_all_that_both_append_is_there_and_whole(mounts: tuple[Path, Path], how: str) -> None:
    """Two processes of one mount, one of the other; they keep the file open, or open it for each record."""
    one, other = mounts
    append_at_once(f"log.{how}", [(one, how), (one, how), (other, how)])
    data = (one / f"log.{how}").read_bytes()
    assert (other / f"log.{how}").read_bytes() == data
    if how == "fcntl":  # the kernel cuts these records at the borders of pages
        assert len(data) == 3 * sum(len(b"%d %d ;" % (0, turn)) + turn * 37 % 5000 for turn in range(ROUNDS))
        return
    records = [record.split(b" ") for record in data.split(b";")[:-1]]
    for number in range(3):
        found = [(int(turn), len(rest)) for who, turn, rest in records if int(who) == number]
        assert found == [(turn, turn * 37 % 5000) for turn in range(ROUNDS)]
    assert len(records) == 3 * ROUNDS
