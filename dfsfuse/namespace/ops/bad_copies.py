"""Copies of pieces that somebody found to be bad, noted in the map: for whoever heals, and for whoever asks how it is.

A server believes that it has a good copy until its own scrub comes by. Who finds out earlier (a reader, verify,
healing) notes the copy here, one key for each, and it counts as missing from then on. The note goes with the finding:
whoever has made the copy anew, or found it to be good, takes it back. What nobody refers to any more is taken back by
the next one who heals everything.

Pure: keys, and functions of a view or a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from dfsfuse.common.portions import by_count
from dfsfuse.namespace.map.transactions import MapStore, Transaction, View
from dfsfuse.namespace.records import keys

Place = tuple[bytes, int, int]
"""Segment, number of the piece, server."""

RANGE: Final = keys.bad_copies()
STEP: Final = 500
"""So many are noted or taken back in one transaction."""
MAX_NOTED: Final = 20_000
"""At most so many are noted: a server of which more are bad has a dead disk, and everybody sees that."""


def find(view: View) -> frozenset[Place]:
    """All that are noted."""
    return frozenset(places(view.scan(*RANGE)))


def places(items: Iterable[tuple[bytes, bytes]]) -> Iterator[Place]:
    """The copies in these items of the map; what is no note of ours is left out."""
    for key, _ in items:
        place = keys.bad_copy_of(key)
        if place is not None:
            yield place


def note(store: MapStore, found: Sequence[Place], now_ns: int) -> None:
    """Note these. Raises ReadOnlyError and the like."""
    value = now_ns.to_bytes(8, "big")

    def work(tx: Transaction, step: Sequence[Place]) -> None:
        names = [keys.bad_copy(*place) for place in step]
        for name, known in zip(names, tx.get_many(names), strict=True):
            if known is None:
                tx.put(name, value)

    for step in by_count(found[:MAX_NOTED], STEP):
        store.transact(lambda tx, step=step: work(tx, step))  # type: ignore[misc]


def take_back(store: MapStore, found: Sequence[Place]) -> None:
    """These are good again, or gone. Raises ReadOnlyError and the like."""

    def work(tx: Transaction, step: Sequence[Place]) -> None:
        for place in step:
            tx.delete(keys.bad_copy(*place))

    for step in by_count(found, STEP):
        store.transact(lambda tx, step=step: work(tx, step))  # type: ignore[misc]
