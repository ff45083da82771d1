"""Which files are fetched together."""

from __future__ import annotations

from dfsfuse.namespace.map.neighbours import BLOCK_INODES, REMEMBERED, Neighbours

N = BLOCK_INODES


def test_the_second_file_of_a_block_brings_the_block_once() -> None:
    neighbours = Neighbours()
    assert not neighbours.of(N + 5)
    assert not neighbours.of(N + 5)  # the same file again
    assert neighbours.of(N + 1) == range(N, 2 * N)
    assert not neighbours.of(N + 2)
    assert not neighbours.of(N + 5)


def test_a_reader_that_goes_on_in_the_next_block_gets_it_at_once() -> None:
    neighbours = Neighbours()
    neighbours.of(N)
    neighbours.of(N + 1)
    assert neighbours.of(2 * N + 7) == range(2 * N, 3 * N)
    assert neighbours.of(3 * N) == range(3 * N, 4 * N)
    assert neighbours.of(7) == range(N)  # going back to the block before counts as well
    assert not neighbours.of(9 * N)


def test_a_random_reader_gets_nothing() -> None:
    neighbours = Neighbours()
    assert not any(neighbours.of(number * 7 * N) for number in range(1000))


def test_a_block_is_forgotten_after_many_others() -> None:
    neighbours = Neighbours()
    neighbours.of(1)
    assert neighbours.of(2)
    for number in range(REMEMBERED):
        neighbours.of((number + 1) * 10 * N)
    assert not neighbours.of(3)
    assert neighbours.of(4) == range(N)


def test_a_file_whose_record_came_along_counts_as_looked_at() -> None:
    neighbours = Neighbours()
    neighbours.came_along(N + 5)
    assert neighbours.of(N + 1) == range(N, 2 * N)
    neighbours.came_along(N + 2)
    assert not neighbours.of(N + 3), "the block was fetched already"
    for number in range(REMEMBERED + 1):
        neighbours.came_along((number + 2) * 10 * N)
    assert not neighbours.of(N + 1), "forgotten"
