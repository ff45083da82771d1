"""The lock on a server's folder: flock on ROOT/.lock, held from the server's start to its end, however it ends. No
threads."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

FILE: Final = ".lock"


def take(lock: int) -> bool:
    """Acquire the lock, given a descriptor of the file. Return whether no other process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(root: Path) -> bool:
    """Whether a server is running on this folder, as far as can be determined."""
    try:
        lock = os.open(root / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not take(lock)
    finally:
        os.close(lock)
