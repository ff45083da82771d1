"""When to fetch what has not been asked for: the pattern of one handle's reads. Pure.

Reads that go on about where the last one ended are sequential (the kernel sends them from several threads, so the
order may be off a little); then whole regions are worth fetching, this one and the next two. Anything else is random,
and only what is asked for is fetched. Guarded by the file's lock.
"""

from __future__ import annotations

from typing import Final

from dfsfuse.data.extents import REGION_BYTES

SLACK_BYTES: Final = 1024 * 1024
REGIONS_AHEAD: Final = 2


class ReadAhead:
    """The reads of one handle so far."""

    def __init__(self) -> None:
        self._end = -1
        self._fetched_to = 0
        """Regions before this one have been given out already, in this run."""
        self._is_sequential = False

    def regions(self, offset: int, size: int) -> range:
        """A read is about to happen: which regions to fetch whole now. Each is given once in a sequential run."""
        self._is_sequential = self._end >= 0 and abs(offset - self._end) <= SLACK_BYTES
        self._end = offset + size
        here = offset // REGION_BYTES
        if not self._is_sequential:
            self._fetched_to = here
            return range(0)
        first = max(here, min(self._fetched_to, here + REGIONS_AHEAD + 1))
        self._fetched_to = here + REGIONS_AHEAD + 1
        return range(first, self._fetched_to)
