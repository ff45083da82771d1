"""The homes that the records name: changed in transactions after pieces have moved.

Nothing is changed that is not as it was read: a segment that was dropped, or moved by another healer, is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from dfsfuse.common.portions import by_count
from dfsfuse.data import extents
from dfsfuse.data.extents import Segment
from dfsfuse.data.placement import Homes
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.vfs.write import regions

STEP_RECORDS: Final = 32
"""At most this many records are changed at once: each may have 16 KiB, and a batch at most 2 MiB."""


class Rehome(NamedTuple):
    """A segment, as read in the record with this key, and the homes it is to have; perhaps those it already has."""

    key: bytes
    segment: Segment
    homes: Homes


def portions(changes: Sequence[Rehome]) -> Iterator[list[Rehome]]:
    """Divide the changes into portions for one transaction each, keeping those of one record together."""
    for portion in by_count(dict.fromkeys(change.key for change in changes), STEP_RECORDS):
        yield [change for change in changes if change.key in portion]


def save(tx: Transaction, changes: Sequence[Rehome]) -> frozenset[bytes]:
    """Make the records name these homes. Returns the ids of the segments for which they now do: not those that have
    been dropped or moved since they were read."""
    keys = list(dict.fromkeys(change.key for change in changes))
    confirmed: set[bytes] = set()
    for key, value in zip(keys, tx.get_many(keys), strict=True):
        if value is None:
            continue
        try:
            region = regions.decode(value)
        except OSError:
            continue
        wanted = {change.segment.id: change for change in changes if change.key == key}
        segments = []
        for segment in region.segments:
            change = wanted.get(segment.id)
            if change is not None and change.segment == segment:
                confirmed.add(segment.id)
                segments.append(msgspec.structs.replace(segment, homes=change.homes))
            else:
                segments.append(segment)
        if tuple(segments) != region.segments:
            tx.put(key, extents.encode(msgspec.structs.replace(region, segments=tuple(segments))))
    return frozenset(confirmed)
