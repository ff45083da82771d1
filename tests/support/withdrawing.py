"""Withdrawing what a thread does, as the kernel binding does for a program that was let go."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from dfsfuse.common import withdrawal


def withdraw_this_thread() -> bool:
    """By another one. Return whether that is possible."""
    mine = threading.get_ident()
    with ThreadPoolExecutor(1) as others:
        return others.submit(withdrawal.withdraw, mine).result()
