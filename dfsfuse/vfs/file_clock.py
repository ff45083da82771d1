"""The clock for the times of files: it shows the time of the system's last tick, as local file systems use it.

The usual clock is up to some milliseconds ahead of it. With that one, a file made here and then one made on a local
disk would seem to have been made in the opposite order, and `make` would rebuild what is up to date.
"""

from __future__ import annotations

import sys
import time
from typing import Final

_CLOCK_REALTIME_COARSE: Final = 5
"""From linux/time.h; Python has no name for it."""

if sys.platform == "linux":

    def now_ns() -> int:
        """Return nanoseconds since 1970. Calls within one tick (1 to 10 ms) return the same."""
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)

else:
    now_ns = time.time_ns
