"""Debian's PostgreSQL with its data in a folder of the mount: creating, starting, querying, stopping.

PostgreSQL refuses to run as root, so root runs all of it as Debian's user `postgres`. It listens only on a socket in a
local folder. Independent of mounts and servers.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from support.programs import run, started

INSTALL: Final = "make conformance-programs"
DEADLINE_S: Final = 240.0
SETTINGS: Final = "fsync = on\nfull_page_writes = on\nlisten_addresses = ''\nautovacuum_naptime = 1s\n"


def programs_folder() -> Path:
    """The folder where Debian puts the programs of the newest installed version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    assert found, f"PostgreSQL is missing: {INSTALL}"
    return found[-1].parent


def children(parent: int) -> list[int]:
    """The running child processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(path.parent.name))
    return found


class PostgreSQL:
    """One database cluster: it creates `data`; `sockets` is a local folder with a short name."""

    def __init__(self, data: Path, sockets: Path) -> None:
        self.data = data
        self.log = sockets / "log"
        self._sockets = sockets
        self._user = "postgres" if os.geteuid() == 0 else None
        self._programs = programs_folder()
        self._pid: int | None = None
        for folder in (data, sockets):
            folder.mkdir(mode=0o700)
            if self._user is not None:
                uid = int(run("id", "-u", self._user, install=INSTALL))
                os.chown(folder, uid, -1)

    def create(self) -> None:
        self.run("initdb", "-D", self.data, "--data-checksums", "--auth=trust", "--username=postgres", "--locale=C")
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(f"{SETTINGS}unix_socket_directories = '{self._sockets}'\n")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it for the length of the block, and leave nothing of it behind."""
        self.start()
        try:
            yield
        finally:
            with suppress(AssertionError):
                self.stop("immediate")
            self.kill()

    def start(self) -> None:
        """Start it, and wait until it has recovered and answers."""
        self.run("pg_ctl", "start", "-w", "-t", str(int(DEADLINE_S)), "-D", self.data, "-l", self.log)
        self._pid = int((self.data / "postmaster.pid").read_text().split()[0])

    def stop(self, mode: str) -> None:
        """Stop it: `fast` is a clean stop, `immediate` is like a crash."""
        self.run("pg_ctl", "stop", "-w", "-t", str(int(DEADLINE_S)), "-m", mode, "-D", self.data)
        self._pid = None

    def kill(self) -> None:
        """kill -9 for its first process and its children; each of them leads a session of its own."""
        if self._pid is None:
            return
        for pid in [self._pid, *children(self._pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pid = None

    def run(self, program: str, *arguments: str | Path) -> str:
        return run(*self.command(program, *arguments), user=self._user, deadline_s=DEADLINE_S, cwd=Path("/"))

    def command(self, program: str, *arguments: str | Path) -> list[str]:
        """The command line of one of its programs."""
        connects = program not in {"initdb", "pg_ctl", "pg_checksums"}
        environment = [f"PGHOST={self._sockets}", "PGUSER=postgres"] if connects else [f"PGDATA={self.data}"]
        return ["env", *environment, str(self._programs / program), *map(str, arguments)]

    def ask(self, question: str) -> str:
        """Run a SQL statement and return its answer: one row per line, columns separated by |."""
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", question).strip()

    def bench(self, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """Run pgbench for the length of a block; with `-P 1` it prints a line each second."""
        return started(*self.command("pgbench", *arguments, "postgres"), user=self._user, cwd=Path("/"))
