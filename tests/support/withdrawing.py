"""Withdrawing a thread's operation, as the kernel binding does for a released program."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from dfsfuse.common import withdrawal


def withdraw_this_thread() -> bool:
    """Withdraw this thread's operation from another thread. Return whether that is possible."""
    mine = threading.get_ident()
    with ThreadPoolExecutor(1) as others:
        return others.submit(withdrawal.withdraw, mine).result()
