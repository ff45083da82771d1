"""Changing the homes in records, in transactions: only records that are still as they were read."""

from __future__ import annotations

import msgspec
from support.memory_map import MemoryMap

from dfsfuse.data import extents
from dfsfuse.data.extents import EMPTY, Region, Segment, overlay
from dfsfuse.data.placement import place, ring
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.heal import homes
from dfsfuse.upkeep.heal.homes import Rehome

KEY = keys.region(2, 0)
STAND_INS = place(0, (1, 3, 4))


def segment(number: int) -> Segment:
    return Segment(number.to_bytes(16, "big"), 1000, STAND_INS, (bytes(32),) * 4)


def store_with(*segments: Segment) -> MemoryMap:
    region = EMPTY
    for number, one in enumerate(segments):
        region = overlay(region, one, [(number * 1000, 1000, 0)])[0]
    store = MemoryMap()
    store.transact(lambda tx: tx.put(KEY, extents.encode(region)))
    return store


def region_in(store: MemoryMap) -> Region:
    return extents.decode(store.items[KEY])


def home(one: Segment) -> Rehome:
    return Rehome(KEY, one, ring(0))


def test_those_that_are_as_they_were_read_and_no_others() -> None:
    one, two, three = segment(1), segment(2), segment(3)
    store = store_with(one, two)
    before = region_in(store)
    assert store.transact(lambda tx: homes.save(tx, [home(one), home(three)])) == {one.id}
    after = region_in(store)
    assert after.segments == (msgspec.structs.replace(one, homes=ring(0)), two)
    assert after.extents == before.extents


def test_one_that_somebody_else_has_moved_is_left_alone() -> None:
    one = segment(1)
    moved = msgspec.structs.replace(one, homes=place(0, (1, 2, 3)))
    store = store_with(moved)
    assert store.transact(lambda tx: homes.save(tx, [home(one)])) == frozenset()
    assert region_in(store).segments == (moved,)


def test_one_that_needs_no_change_is_confirmed_without_a_batch() -> None:
    one = segment(1)
    store = store_with(one)
    count = len(store.batches)
    assert store.transact(lambda tx: homes.save(tx, [Rehome(KEY, one, one.homes)])) == {one.id}
    assert len(store.batches) == count


def test_a_record_that_is_gone_or_cannot_be_read_confirms_nothing() -> None:
    store = MemoryMap()
    assert store.transact(lambda tx: homes.save(tx, [home(segment(1))])) == frozenset()
    store.transact(lambda tx: tx.put(KEY, b"?"))
    assert store.transact(lambda tx: homes.save(tx, [home(segment(1))])) == frozenset()
    assert store.items[KEY] == b"?"


def test_changes_of_one_record_are_made_together() -> None:
    changes = [Rehome(keys.region(2, n % 70), segment(n), ring(0)) for n in range(140)]
    portions = list(homes.portions(changes))
    assert sorted(change.segment.id for portion in portions for change in portion) == sorted(
        c.segment.id for c in changes
    )
    assert len(portions) == 3
    assert not set.intersection(*({change.key for change in portion} for portion in portions[:2]))
