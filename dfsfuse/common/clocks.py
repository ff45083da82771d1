"""The clock by which a lease is counted: it keeps running while the machine sleeps.

`time.monotonic` stops while a laptop's lid is closed (on Linux); after waking up, a client would believe it still holds
a lease that the servers have long given to others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

if hasattr(time, "CLOCK_BOOTTIME"):
    lease_clock: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    """Seconds; it never goes back, and includes the time that the machine slept."""

else:  # elsewhere monotonic() already does this (macOS), or there is no such clock
    lease_clock = time.monotonic
