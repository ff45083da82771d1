"""Segments that are on the servers and in no batch yet: how long they may stay so.

A day after it was stored, a piece that no record refers to is swept, for its client must be dead
(`dfsfuse/upkeep/sweep/sweeping.py`). A live client must never refer to such a piece: what has been uploaded for
`KEEP_NS` is put again first, and what is older is never put into a batch. The check is part of the transaction, and
reads the key that each sweep changes before it looks: so a batch of a machine that stood still between the check and
the commit (a suspended laptop) is not taken as it is, but checked again. Pure.
"""

from __future__ import annotations

from typing import Final

from dfsfuse.errors import UnavailableError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.records import keys

KEEP_NS: Final = 6 * 3600 * 10**9
"""A quarter of the sweep's waiting time: clocks may be wrong by hours."""
SOON_NS: Final = 3600 * 10**9
"""After this long it is better to commit what is uploaded, even if a writer waits for more."""


def is_old(began_ns: int, now_ns: int, limit_ns: int = KEEP_NS) -> bool:
    """Return whether this has been uploaded for too long, or if that is unknown because the clock was set back."""
    return not 0 <= now_ns - began_ns <= limit_ns


def check(tx: Transaction, began_ns: int, now_ns: int) -> None:
    """Raise UnavailableError if what was put from `began_ns` on may be swept before this commits; nothing is lost."""
    tx.get(keys.SWEEP)
    if is_old(began_ns, now_ns):
        raise UnavailableError("what was put hours ago is in no file yet: this machine stood still, or data is slow")
