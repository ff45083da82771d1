"""When to fetch what has not been asked for: the pattern of one handle's reads. Pure.

Reads that go on about where the last one ended are sequential (the kernel sends them from several threads, so the
order may be off a little); then whole regions are worth fetching, this one and the next two. Anything else is random,
and only what is asked for is fetched. Of random reads, too, one now and then goes on where the last one ended, by
chance, and 12 MiB for that would be as much as for 200 others: so it takes two that go on one after the other, or one
after a read of the file's beginning. Guarded by the file's lock.
"""

from __future__ import annotations

from typing import Final

from dfsfuse.data.extents import REGION_BYTES

SLACK_BYTES: Final = 1024 * 1024
REGIONS_AHEAD: Final = 2
SEQUENTIAL_RUN: Final = 2
"""Number of reads in a row that go on where the last one ended (a read of the beginning counts as one)."""


_NONE: Final = range(0)


class ReadAhead:
    """The reads of one handle so far."""

    def __init__(self) -> None:
        self._end = -1
        self._fetched_to = 0
        """Regions before this one have been given out already, in this run."""
        self._run = 0

    def regions(self, offset: int, size: int) -> range:
        """A read is about to happen: which regions to fetch whole now. Each is given once in a sequential run."""
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
