"""Databases that use shared mappings, from two mounts at once. They are Debian's, used through its Python.

Counting from two mounts must give the right number; what no lock can make correct is refused with the program's own
message, and nothing that was acknowledged is lost.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount
from support.programs import run
from support.told import run_at_once

pytestmark = [pytest.mark.programs, pytest.mark.timeout(300)]

PYTHON: Final = "/usr/bin/python3"
TURNS: Final = 40
GDBM: Final = """
import dbm.gnu, sys, time
for _ in range(int(sys.argv[2])):
    while True:
        try:
            database = dbm.gnu.open(sys.argv[1], "c")
            break
        except dbm.gnu.error as error:  # another one has it open
            assert error.errno == 11, error
            time.sleep(0.002)
    database["n"] = str(int(database.get("n", b"0")) + 1)
    database.close()
"""
TDB: Final = """
import os, sys, tdb
database = tdb.Tdb(sys.argv[1], tdb_flags=tdb.DEFAULT, flags=os.O_RDWR | os.O_CREAT)
for number in range(int(sys.argv[2])):
    database.transaction_start()
    database.store(b"n", b"%d" % (int(database.get(b"n") or b"0") + 1))
    database.transaction_commit()
database.close()
"""
LMDB: Final = """
import lmdb, sys
environment = lmdb.open(sys.argv[1], subdir=sys.argv[3] == "folder")
print("open", flush=True)
with environment.begin(write=True) as transaction:
    transaction.put(sys.argv[2].encode(), b"value")
sys.stdin.read()
environment.close()
"""
LMDB_KEYS: Final = """
import lmdb, sys
environment = lmdb.open(sys.argv[1], subdir=sys.argv[2] == "folder")
with environment.begin() as transaction:
    print(*sorted(bytes(key).decode() for key, _ in transaction.cursor()))
"""


@pytest.fixture(scope="module")
def sides(grid: Grid) -> Iterator[tuple[Mount, Mount]]:
    yield grid.mount("one"), grid.mount("other")


def test_gdbm_counts_from_both(sides: tuple[Mount, Mount]) -> None:
    one, other = (side.path / "counter.gdbm" for side in sides)
    run_at_once(*([GDBM, path, str(TURNS)] for path in (one, other)), python=PYTHON, deadline_s=200)
    found = run(PYTHON, "-c", "import dbm.gnu, sys; print(dbm.gnu.open(sys.argv[1])['n'].decode())", other)
    assert found == f"{2 * TURNS}\n"


def test_tdb_counts_from_both(sides: tuple[Mount, Mount]) -> None:
    """tdb maps its file, and locks ranges of bytes."""
    one, other = (side.path / "counter.tdb" for side in sides)
    run_at_once(*([TDB, path, str(TURNS)] for path in (one, other)), python=PYTHON, deadline_s=200)
    script = "import os, sys, tdb; print(tdb.Tdb(sys.argv[1], flags=os.O_RDONLY).get(b'n').decode())"
    assert run(PYTHON, "-c", script, other) == f"{2 * TURNS}\n"


@contextmanager
def opened(path: Path, key: str, kind: str) -> Iterator[subprocess.Popen[str]]:
    """A program that keeps an environment open until its input ends."""
    command = [PYTHON, "-c", LMDB, str(path), key, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        try:
            assert user.stdout is not None
            assert user.stdout.readline() == "open\n"
            yield user
        finally:
            user.kill()


def lmdb(path: Path, key: str, kind: str) -> subprocess.CompletedProcess[str]:
    """A program that puts a key into an environment."""
    command = [PYTHON, "-c", LMDB, str(path), key, kind]
    return subprocess.run(command, input="", capture_output=True, timeout=60, check=False, text=True)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_lmdb_is_open_on_one_mount_at_a_time(sides: tuple[Mount, Mount], kind: str) -> None:
    here, there = (side.path / f"lmdb-{kind}" for side in sides)
    if kind == "folder":
        here.mkdir()
    with opened(here, "first", kind) as user:
        assert lmdb(here, "second", kind).returncode == 0
        refused = lmdb(there, "refused", kind)
        assert (refused.returncode, "Resource temporarily unavailable" in refused.stderr) == (1, True), refused.stderr
        user.communicate("", timeout=60)
    assert lmdb(there, "third", kind).returncode == 0
    assert run(PYTHON, "-c", LMDB_KEYS, here, kind) == "first second third\n"


def test_sqlite_on_a_mount_that_was_stopped_does_not_write_into_its_successors_log(
    grid: Grid, sides: tuple[Mount, Mount]
) -> None:
    """Its write is refused (after SQLite's ten seconds of retries), and all of the other's rows are there."""
    mount = grid.mount("stopped", ("-o", "lock_timeout=2"))
    one, other = mount.path / "wal.db", sides[0].path / "wal.db"
    with closing(sqlite3.connect(one, isolation_level=None)) as late:
        late.execute("pragma journal_mode=wal")
        late.execute("create table t (n)")
        late.execute("insert into t values (1)")
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            database = sqlite3.connect(other, isolation_level=None, timeout=60)
            database.execute("insert into t values (2)")
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        with closing(database):
            with pytest.raises(sqlite3.OperationalError):
                late.execute("insert into t values (3)")
            database.execute("insert into t values (4)")
            late.execute("pragma wal_checkpoint")
            assert database.execute("select n from t").fetchall() == [(1,), (2,), (4,)]
    with closing(sqlite3.connect(one)) as again:
        assert again.execute("pragma integrity_check").fetchone() == ("ok",)
        assert again.execute("select count(*) from t").fetchone() == (3,)
