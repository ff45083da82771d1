"""Bringing everything that a server has accepted into its SQLite file, for tests that read or damage the file directly.

A server collects what it accepts in its redo log and flushes it to the tables once nothing has come for a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import time
from pathlib import Path

from dfs_server.store.store import NamespaceStore

WAIT_S = 10.0


def flush(root: Path, user: str) -> None:
    """Wait until a running server has flushed, for at most `WAIT_S`; flush for one that is not running."""
    if not (root / user / "namespace.redo").exists():
        return
    if not _is_running(root):
        NamespaceStore(root / user, root.name).close()
        return
    deadline = time.monotonic() + WAIT_S
    while not _is_flushed(root / user) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_flushed(folder: Path) -> bool:
    """Whether the redo log has no record of the epoch in the file."""
    uri = f"file:{folder / 'namespace.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=20)) as database:
        (epoch,) = database.execute("SELECT epoch FROM state").fetchone() or (b"",)
    try:
        return not epoch or not (folder / "namespace.redo").read_bytes().startswith(epoch)
    except FileNotFoundError:
        return True


def _is_running(root: Path) -> bool:
    """Whether a server holds the folder's lock."""
    with (root / ".lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
