"""The clock by which a lease is counted: one that goes on while the machine sleeps.

`time.monotonic` stands still while a laptop's lid is closed (on Linux); whoever woke up would take a lease for his that
the servers have given to others long ago.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

if hasattr(time, "CLOCK_BOOTTIME"):
    lease_clock: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    """Seconds; it never goes back, and counts the time that the machine slept."""

else:  # elsewhere monotonic() does so already (macOS), or there is none
    lease_clock = time.monotonic
