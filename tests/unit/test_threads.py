"""Threads are started in a few places only: a loop that waits, is woken and takes a step is a `Worker`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

REPOSITORY = Path(__file__).resolve().parents[2]
STARTERS: Final = {"Thread", "Timer", "ThreadPoolExecutor", "start_new_thread"}
REASONS: Final = {
    "dfsfuse/common/worker.py": "the one class for a thread that waits, is woken and takes a step",
    "dfsfuse/namespace/map/log_map.py": "the committer carries out one procedure, whose waits are steps that the "
    "simulation carries out too",
    "dfsfuse/net/cluster.py": "one thread for each name to resolve: getaddrinfo() has no deadline, and is left behind",
    "dfsfuse/data/segments.py": "a pool for what is read ahead: each task has a result that somebody waits for",
    "dfsfuse/vfs/vfs.py": "pools for uploads, compaction and what nobody waits for: single tasks with results",
    "dfsfuse/mount/mapped_pages.py": "a pool: each task waits for the kernel, and somebody perhaps for the task",
    "dfsfuse/mount/bindings.py": "waits in sigwait(), which nothing but a signal can end",
    "dfsfuse/fusekernel/readers.py": "readers of /dev/fuse pass a lock on among them; their supervisor looks every few "
    "milliseconds. The package imports nothing of dfsfuse",
    "dfsfuse/fusekernel/interruption.py": "a watcher that ends when there is nobody to watch (see readers.py)",
    "dfsfuse/fusekernel/parking.py": "a keeper that ends when nothing is parked, and its pools (see readers.py)",
    "dfs_server/daemon.py": "one for each connection, one that accepts; three that wait for the server's end, like all "
    "others here. The server imports nothing of dfsfuse",
    "dfs_server/scrub/scrubber.py": "lives as long as one statement of SQLite, which only another thread can interrupt",
}
"""Why each of these files starts threads by itself."""


def starts_threads(file: Path) -> bool:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in STARTERS:
                return True
        elif isinstance(node, ast.ClassDef) and any("Thread" in ast.unparse(base) for base in node.bases):
            return True
    return False


def test_threads_are_started_where_there_is_a_reason_for_it() -> None:
    files = [file for package in ("dfsfuse", "dfs_server") for file in (REPOSITORY / package).rglob("*.py")]
    found = {str(file.relative_to(REPOSITORY)) for file in files if starts_threads(file)}
    assert found == REASONS.keys(), "use dfsfuse/common/worker.py, or say here why not"
