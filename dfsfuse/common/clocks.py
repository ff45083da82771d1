"""The clock by which a lease is counted: one that goes on while the machine sleeps.

`time.monotonic` stands still while a laptop's lid is closed (on Linux); whoever woke up would take a lease for his that
the servers have given to others long ago.
"""

from __future__ import annotations

import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def lease_clock() -> float:
        """Seconds; it never goes back, and counts the time that the machine slept."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:  # elsewhere monotonic() does so already (macOS), or there is none
    lease_clock = time.monotonic
