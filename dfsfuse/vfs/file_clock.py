"""The clock that the times of files are taken from: it shows the time of the system's last tick, as local file systems
take it.

The usual clock is up to some milliseconds ahead of it. With that one, a file made here and then one made on a local
disk would seem to have been made in the other order, and `make` would build again what is up to date.
"""

from __future__ import annotations

import sys
import time
from typing import Final

_CLOCK_REALTIME_COARSE: Final = 5
"""Of linux/time.h; Python has no name for it."""

if sys.platform == "linux":

    def now_ns() -> int:
        """Nanoseconds since 1970. Calls within one tick (1 to 10 ms) give the same."""
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)

else:
    now_ns = time.time_ns
