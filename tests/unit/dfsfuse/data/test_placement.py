"""The ring, exactly as the mission's table shows it; handoff, and which server to ask first."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfsfuse.data.placement import (
    Homes,
    NotEnoughServersError,
    choose_sources,
    pairs,
    place,
    ring,
    rotation_of,
    rotation_of_region,
)

ALL = frozenset({1, 2, 3, 4})

# DESIGN, section 1, word by word:  x | DFS1 | DFS2 | DFS3 | DFS4
MISSION_TABLE = """
  | 0 | 1,2 | 2,3 | 3,4 | 4,1 |
  | 1 | 4,1 | 1,2 | 2,3 | 3,4 |
  | 2 | 3,4 | 4,1 | 1,2 | 2,3 |
  | 3 | 2,3 | 3,4 | 4,1 | 1,2 |
"""


def _cells() -> list[tuple[int, int, tuple[int, int]]]:
    cells = []
    for line in MISSION_TABLE.strip().split("\n"):
        fields = [field.strip() for field in line.strip().strip("|").split("|")]
        for server, field in enumerate(fields[1:], start=1):
            first, second = field.split(",")
            cells.append((int(fields[0]), server, (int(first), int(second))))
    return cells


def _loads(homes: Homes) -> Counter[int]:
    return Counter(server for home in homes for server in home)


def test_the_table_has_sixteen_cells() -> None:
    assert len(_cells()) == 16


@pytest.mark.parametrize(("x", "server", "pair"), _cells())
def test_the_missions_table(x: int, server: int, pair: tuple[int, int]) -> None:
    assert pairs(x)[server] == pair
    held = {number for number, home in enumerate(ring(x), start=1) if server in home}
    assert held == set(pair)


@pytest.mark.parametrize("x", range(4))
def test_a_pieces_first_home_is_the_server_whose_pair_begins_with_it(x: int) -> None:
    for number, home in enumerate(ring(x), start=1):
        assert pairs(x)[home[0]][0] == number
        assert pairs(x)[home[1]][1] == number


@given(st.binary(max_size=50))
def test_rotation_is_md5_mod_4(data: bytes) -> None:
    assert rotation_of(data) == int(hashlib.md5(data).hexdigest(), 16) % 4
    assert rotation_of(memoryview(data)) == rotation_of(data)


def test_rotations_of_known_contents() -> None:
    assert rotation_of(b"") == 0xE % 4  # d41d8cd98f00b204e9800998ecf8427e
    assert rotation_of(b"hello") == 0x2 % 4  # 5d41402abc4b2a76b9719d911017c592
    assert [rotation_of_region(3, region) for region in range(5)] == [3, 0, 1, 2, 3]


@pytest.mark.parametrize("x", range(4))
def test_with_all_servers_the_place_is_the_ring(x: int) -> None:
    assert place(x, ALL) == ring(x)


@pytest.mark.parametrize("x", range(4))
@pytest.mark.parametrize("down", sorted(ALL))
def test_handoff_with_one_server_down(x: int, down: int) -> None:
    homes = place(x, ALL - {down})
    for home, wanted in zip(homes, ring(x), strict=True):
        assert len(set(home)) == 2
        assert down not in home
        assert set(wanted) - {down} <= set(home)
    assert sorted(_loads(homes).values()) == [2, 3, 3]


@pytest.mark.parametrize("down", sorted(ALL))
def test_handoff_of_a_long_file_burdens_no_server_much_more(down: int) -> None:
    total = sum((_loads(place(x, ALL - {down})) for x in range(4)), Counter())
    assert max(total.values()) - min(total.values()) <= 2


@pytest.mark.parametrize("x", range(4))
@pytest.mark.parametrize("usable", list(combinations(sorted(ALL), 2)))
def test_two_servers_get_everything(x: int, usable: tuple[int, int]) -> None:
    assert all(set(home) == set(usable) for home in place(x, usable))


@pytest.mark.parametrize("usable", [set(), {3}])
def test_one_server_is_not_enough(usable: set[int]) -> None:
    with pytest.raises(NotEnoughServersError):
        place(0, usable)


@pytest.mark.parametrize("x", range(4))
def test_every_server_sends_one_quarter_when_all_are_up(x: int) -> None:
    order = choose_sources(ring(x), ALL)
    assert {servers[0] for servers in order.values()} == ALL
    for number, servers in order.items():
        assert set(servers) == set(ring(x)[number - 1])


@pytest.mark.parametrize("x", range(4))
@pytest.mark.parametrize("down", sorted(ALL))
def test_reading_with_one_server_down(x: int, down: int) -> None:
    order = choose_sources(ring(x), ALL - {down})
    first = Counter(servers[0] for servers in order.values())
    assert down not in first
    assert max(first.values()) == 2
    assert all(servers[-1] == down for servers in order.values() if down in servers)


@pytest.mark.parametrize("x", range(4))
@pytest.mark.parametrize("down", sorted(ALL))
def test_what_was_handed_off_is_read_from_all_when_all_are_up_again(x: int, down: int) -> None:
    order = choose_sources(place(x, ALL - {down}), ALL)
    assert len({servers[0] for servers in order.values()}) == 3


def test_a_piece_with_no_usable_home_is_still_asked_for() -> None:
    order = choose_sources(ring(0), frozenset({2, 3}))
    assert order[1] == (1, 4)
    assert order[2][0] == 2
    assert order[4][0] == 3
