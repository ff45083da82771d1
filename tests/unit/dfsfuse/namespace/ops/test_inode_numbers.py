"""Inode numbers are never used twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from support.memory_map import MemoryMap

from dfsfuse.namespace.ops.inode_numbers import NUMBERS_PER_BLOCK, InodeNumbers
from dfsfuse.namespace.records import keys


def test_numbers_are_reserved_in_blocks() -> None:
    store = MemoryMap()
    numbers = InodeNumbers(store)
    taken = [numbers.take() for _ in range(NUMBERS_PER_BLOCK + 1)]
    assert taken == list(range(2, NUMBERS_PER_BLOCK + 3))
    assert len(store.batches) == 2


def test_clients_never_get_the_same_number() -> None:
    store = MemoryMap()
    clients = [InodeNumbers(store) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda turn: clients[turn % 4].take(), range(3000)))
    assert len(set(taken)) == len(taken)
    assert keys.ROOT not in taken


def test_a_failed_reservation_takes_nothing() -> None:
    store = MemoryMap()
    numbers = InodeNumbers(store)
    store.is_writable = False
    with pytest.raises(Exception, match="do not answer"):
        numbers.take()
    store.is_writable = True
    assert numbers.take() == keys.FIRST_INODE
