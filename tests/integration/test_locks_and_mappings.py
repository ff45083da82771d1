"""Two mounts, and programs that write through shared mappings: under locks, and where locks cannot make that
correct."""

from __future__ import annotations

import fcntl
import mmap
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount, eventually, within
from support.told import file_of_test, run_at_once

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

LOCK_TIMEOUT_S: Final = 2.0
OPTIONS: Final = ("-o", f"binding=kernel,lock_timeout={LOCK_TIMEOUT_S:g}")
TURNS: Final = 25
COUNTER: Final = """
import fcntl, mmap, os, struct, sys
how, path, turns = sys.argv[1], sys.argv[2], int(sys.argv[3])
file = os.open(path, os.O_RDWR)
memory = mmap.mmap(file, 8192)
memory[:8]  # the page is there
def ofd(kind):
    fcntl.fcntl(file, 38, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))
for _ in range(turns):
    {"fcntl": lambda: fcntl.lockf(file, fcntl.LOCK_EX), "flock": lambda: fcntl.flock(file, fcntl.LOCK_EX),
     "ofd": lambda: ofd(fcntl.F_WRLCK), "shared": lambda: fcntl.lockf(file, fcntl.LOCK_EX)}[how]()
    number = int.from_bytes(memory[:8], "little") + 1
    memory[:8] = number.to_bytes(8, "little")
    memory[5000:5008] = number.to_bytes(8, "little")
    if how == "shared":
        fcntl.lockf(file, fcntl.LOCK_SH)
    {"fcntl": lambda: fcntl.lockf(file, fcntl.LOCK_UN), "flock": lambda: fcntl.flock(file, fcntl.LOCK_UN),
     "ofd": lambda: ofd(fcntl.F_UNLCK), "shared": lambda: fcntl.lockf(file, fcntl.LOCK_UN)}[how]()
"""
INSERT: Final = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
for number in range(int(sys.argv[2])):
    database.execute("insert into t values (?)", (number,))
database.close()
"""


@pytest.fixture(scope="module")
def mounts(grid: Grid) -> tuple[Mount, Mount]:
    return grid.mount("a", OPTIONS), grid.mount("b", OPTIONS)


@pytest.fixture
def paths(mounts: tuple[Mount, Mount], request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """The paths of one file in each mount."""
    return file_of_test(request, mounts, bytes(8192))


@pytest.mark.parametrize("how", ["fcntl", "flock", "ofd", "shared"])
def test_a_counter_in_a_mapping_is_incremented_from_both(paths: tuple[Path, Path], how: str) -> None:
    """Under each lock, everything that was written under the one before is visible, on every page. With `shared`, the
    lock is released in two steps. (Programs on both sides have the file mapped all the time.)"""
    run_at_once(*([COUNTER, how, str(path), str(TURNS)] for path in (*paths, paths[0])))
    data = paths[1].read_bytes()
    assert int.from_bytes(data[:8], "little") == int.from_bytes(data[5000:5008], "little") == 3 * TURNS


def test_what_a_shared_lock_lets_others_read_was_written_before(paths: tuple[Path, Path]) -> None:
    with paths[0].open("r+b") as mine, paths[1].open("r+b") as theirs, mmap.mmap(mine.fileno(), 8192) as memory:
        fcntl.lockf(mine, fcntl.LOCK_EX)
        memory[:5] = b"first"
        fcntl.lockf(mine, fcntl.LOCK_SH)
        fcntl.lockf(theirs, fcntl.LOCK_SH)
        assert os.pread(theirs.fileno(), 5, 0) == b"first"


def test_what_was_mapped_shows_when_a_close_ends_the_lock(paths: tuple[Path, Path]) -> None:
    """Even though the mapping still exists."""
    descriptor = os.open(paths[0], os.O_RDWR)
    with mmap.mmap(descriptor, 8192) as memory, paths[1].open("r+b") as theirs:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        memory[:5] = b"first"
        os.close(descriptor)
        fcntl.lockf(theirs, fcntl.LOCK_EX)
        assert os.pread(theirs.fileno(), 5, 0) == b"first"


def test_what_was_mapped_shows_when_a_killed_process_lets_go(paths: tuple[Path, Path]) -> None:
    script = (
        "import fcntl, mmap, os, sys, time\n"
        "file = os.open(sys.argv[1], os.O_RDWR)\n"
        "memory = mmap.mmap(file, 4096)\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "memory[:5] = b'first'\n"
        "print('written', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(paths[0])], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert within(20, "written", program.stdout.readline) == b"written\n"
        program.kill()
        program.wait(20)
    with paths[1].open("r+b") as theirs:
        fcntl.lockf(theirs, fcntl.LOCK_EX)
        assert os.pread(theirs.fileno(), 5, 0) == b"first"


# ---------------------------------------------------------------------- SQLite's write-ahead log


def database(path: Path, timeout_s: float = 0.0) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=timeout_s, isolation_level=None)


@pytest.fixture
def databases(paths: tuple[Path, Path]) -> tuple[Path, Path]:
    """The paths of a closed database with a write-ahead log."""
    with closing(database(paths[0].with_suffix(".db"))) as made:
        assert made.execute("pragma journal_mode=wal").fetchone() == ("wal",)
        made.execute("create table t (n)")
    return paths[0].with_suffix(".db"), paths[1].with_suffix(".db")


def rows(path: Path) -> int:
    with closing(database(path, 20)) as found:
        assert found.execute("pragma integrity_check").fetchone() == ("ok",)
        count: int = found.execute("select count(*) from t").fetchone()[0]
        return count


def test_a_write_ahead_log_is_used_by_one_mount_at_a_time(
    databases: tuple[Path, Path], mounts: tuple[Mount, Mount]
) -> None:
    """Whether reader or writer: the second mount gets "database is locked" until the first has closed it."""
    one, other = databases
    with closing(database(one)) as writer, closing(database(one)) as beside:
        writer.execute("insert into t values (1)")
        assert beside.execute("select count(*) from t").fetchone() == (1,), "two programs on one mount may use it"
        with closing(database(other)) as refused:
            for words in ("select * from t", "insert into t values (2)"):
                with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                    refused.execute(words)
    assert rows(other) == 1
    with closing(database(other)) as reader:
        assert reader.execute("select count(*) from t").fetchone() == (1,)
        with closing(database(one)) as refused, pytest.raises(sqlite3.OperationalError, match="database is locked"):
            refused.execute("insert into t values (3)")
    assert mounts[1].log.read_text().count(f"{other.name}': a lock is refused") == 1, "logged once, with the name"


def test_writers_of_both_mounts_lose_no_row_of_a_write_ahead_log(databases: tuple[Path, Path]) -> None:
    """They take turns, as long as they wait long enough (`timeout`)."""
    run_at_once(*([INSERT, str(path), "20"] for path in databases))
    assert rows(databases[1]) == 40


def test_the_write_ahead_log_of_a_mount_that_died_is_recovered_by_another(
    grid: Grid, databases: tuple[Path, Path]
) -> None:
    mount = grid.mount("dies", OPTIONS)
    with closing(database(mount.path / databases[0].name)) as writer:
        writer.execute("insert into t values (1)")
        mount.kill()
        found: list[int] = []

        def try_again() -> bool:
            try:
                with closing(database(databases[1])) as other:
                    found.append(other.execute("select count(*) from t").fetchone()[0])
            except sqlite3.OperationalError:
                return False
            return True

        eventually(try_again, "the dead mount's locks have ended")
    assert found == [1]


LMDB_OPENS: Final = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)
except OSError:
    fcntl.lockf(file, fcntl.LOCK_SH, 1, 0)
else:
    fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 0)
print("open", flush=True)
sys.stdin.read()
"""
"""What LMDB does with its lock file. tests/programs/test_two_mounts.py uses the real LMDB."""


def test_an_lmdb_environment_is_used_by_one_mount_at_a_time(mounts: tuple[Mount, Mount]) -> None:
    """It would wait for its lock forever, so it is refused instead."""
    for name in ("lock.mdb", "one-file.mdb-lock"):
        here, there = (mount.path / name for mount in mounts)
        command = [sys.executable, "-c", LMDB_OPENS]
        with subprocess.Popen([*command, here], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
            assert user.stdout is not None
            assert within(20, "open", user.stdout.readline) == b"open\n"
            beside = subprocess.run([*command, here], input=b"", timeout=20, check=True, capture_output=True)
            assert beside.stdout == b"open\n"
            refused = subprocess.run([*command, there], input=b"", timeout=20, check=False, capture_output=True)
            assert b"BlockingIOError: [Errno 11] Resource temporarily unavailable" in refused.stderr
            user.communicate(timeout=20)
        after = subprocess.run([*command, there], input=b"", timeout=20, check=True, capture_output=True)
        assert after.stdout == b"open\n"
