"""PostgreSQL in a mount: created by initdb, used by pgbench while servers are killed, and undamaged afterwards.

It relies on fsync for everything. So what it has acknowledged must be there after its own crash, a server's and the
mount's, and its own checks must find nothing: pgbench's sums, pg_amcheck (tables and indexes compared), pg_checksums
(each page on disk).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, Mount
from support.postgresql import PostgreSQL

pytestmark = [pytest.mark.programs, pytest.mark.timeout(900)]

CLIENTS: Final = 4
SCALE: Final = 2
SECONDS: Final = 30


@pytest.fixture
def database(root: Path, grid: Grid) -> Iterator[PostgreSQL]:
    database = PostgreSQL(root / "data", grid.folder / f"sockets-{root.name[:20]}")
    database.create()
    with database.running():
        database.run("pgbench", "-i", "-q", "-s", str(SCALE), "postgres")
        yield database


def test_pgbench_while_a_server_is_killed_and_returns(database: PostgreSQL, grid: Grid, mount: Mount) -> None:
    with database.bench("-c", str(CLIENTS), "-j", "2", "-T", str(SECONDS), "-P", "1") as bench:
        seconds_of(bench, SECONDS // 3)
        with grid.without(2):
            seconds_of(bench, SECONDS // 3)
        said, _ = bench.communicate(timeout=120)
    assert bench.returncode == 0, said
    done = int(re.findall(r"actually processed: (\d+)", said)[0])
    assert "number of failed transactions: 0 " in said and done > 0, said
    is_consistent(database, done)
    database.stop("immediate")
    mount.remount()
    database.start()
    is_consistent(database, done)
    is_sound(database)


def test_pgbench_when_the_mount_dies(database: PostgreSQL, mount: Mount, grid: Grid) -> None:
    """kill -9 of `dfsmount` under load: each commit that pgbench was told of is there after a new mount."""
    log = grid.folder / "acknowledged"
    log.mkdir(mode=0o777)
    log.chmod(0o777)
    arguments = ("-c", str(CLIENTS), "-T", str(SECONDS), "-P", "1", "-l", "--log-prefix", str(log / "commit"))
    with database.bench(*arguments) as bench:
        seconds_of(bench, SECONDS // 3)
        mount.kill()
        bench.communicate(timeout=120)
    acknowledged = sum(path.read_text().count("\n") for path in log.iterdir())
    database.kill()
    mount.mount()
    database.start()
    found = int(database.ask("SELECT count(*) FROM pgbench_history"))
    assert 0 < acknowledged <= found <= acknowledged + CLIENTS
    is_consistent(database, found)
    is_sound(database)


def seconds_of(bench: subprocess.Popen[str], count: int) -> None:
    """Wait until pgbench has reported this many seconds with progress."""
    assert bench.stdout is not None
    while count:
        line = bench.stdout.readline()
        assert line, "pgbench ended"
        rate = re.match(r"progress: [\d.]+ s, ([\d.]+) tps", line)
        count -= bool(rate and float(rate[1]) > 0)


def is_consistent(database: PostgreSQL, transactions: int) -> None:
    """Check that each transaction added its number to an account, a teller, a branch and the history, or to none of
    them."""
    sums = ["abalance) FROM pgbench_accounts", "tbalance) FROM pgbench_tellers", "bbalance) FROM pgbench_branches"]
    answers = {database.ask(f"SELECT sum({rest}") for rest in [*sums, "delta) FROM pgbench_history"]}
    assert len(answers) == 1, answers
    assert int(database.ask("SELECT count(*) FROM pgbench_history")) == transactions
    assert int(database.ask("SELECT count(*) FROM pgbench_accounts")) == SCALE * 100_000


def is_sound(database: PostgreSQL) -> None:
    """Check with PostgreSQL's own tools that nothing is damaged, and stop it."""
    database.run("pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--parent-check")
    database.stop("fast")
    said = database.run("pg_checksums", "--check", "-D", database.data)
    assert re.search(r"Bad checksums: +0$", said, re.MULTILINE), said
