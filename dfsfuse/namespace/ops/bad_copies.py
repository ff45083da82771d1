"""Copies of pieces that were found to be bad, noted in the map: for healing, and for reports on the state.

A server believes that it has a good copy until its own scrub comes by. A client that finds out earlier (a reader,
verify, healing) notes the copy here, one key per copy, and it counts as missing from then on. The client that restores
the copy, or finds it to be good, removes the note. Notes on what is no longer referred to are removed by the next
complete healing.

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
"""At most this many are noted or removed in one transaction."""
MAX_NOTED: Final = 20_000
"""At most this many are noted: a server with more bad copies has a dead disk, which everyone notices."""


def find(view: View) -> frozenset[Place]:
    """Return all that are noted."""
    return frozenset(places(view.scan(*RANGE)))


def places(items: Iterable[tuple[bytes, bytes]]) -> Iterator[Place]:
    """Yield the copies in these items of the map; items that are not our notes are skipped."""
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
    """Remove the notes of these, which are good again, or gone. Raises ReadOnlyError and the like."""

    def work(tx: Transaction, step: Sequence[Place]) -> None:
        for place in step:
            tx.delete(keys.bad_copy(*place))

    for step in by_count(found, STEP):
        store.transact(lambda tx, step=step: work(tx, step))  # type: ignore[misc]
