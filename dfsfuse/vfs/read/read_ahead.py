"""When to fetch what has not been asked for: the pattern of one handle's reads. Pure.

Reads that continue roughly where the last one ended are sequential (the kernel sends them from several threads, so the
order may be slightly off); then whole regions are worth fetching, this one and the next two. Anything else is random,
and only what is asked for is fetched. Random reads, too, now and then continue by chance where the last one ended, and
12 MiB for that would be as much as for 200 others: so it takes two that continue one after the other, or one after a
read of the file's beginning. Guarded by the file's lock.
"""

from __future__ import annotations

from typing import Final

from dfsfuse.data.extents import REGION_BYTES

SLACK_BYTES: Final = 1024 * 1024
REGIONS_AHEAD: Final = 2
SEQUENTIAL_RUN: Final = 2
"""Number of consecutive reads that continue where the last one ended (a read of the beginning counts as one)."""


_NONE: Final = range(0)


class ReadAhead:
    """The reads of one handle so far."""

    def __init__(self) -> None:
        self._end = -1
        self._fetched_to = 0
        """Regions before this one have already been returned, in this run."""
        self._run = 0

    def regions(self, offset: int, size: int) -> range:
        """Return which regions to fetch whole now, given the read about to happen. Each is returned once in a
        sequential run."""
        if self._end >= 0 and abs(offset - self._end) <= SLACK_BYTES:
            self._run += 1
        else:
            self._run = int(offset == 0)
        self._end = offset + size
        here = offset // REGION_BYTES
        if self._run < SEQUENTIAL_RUN:
            self._fetched_to = here
            return _NONE
        first = max(here, min(self._fetched_to, here + REGIONS_AHEAD + 1))
        self._fetched_to = here + REGIONS_AHEAD + 1
        return range(first, self._fetched_to)
