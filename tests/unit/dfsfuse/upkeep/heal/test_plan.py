"""For every rotation and every state of the servers, the plan for healing keeps the rules and is sufficient."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.data.placement import Homes, place, ring
from dfsfuse.upkeep.heal.plan import Transfer, copies, missing, settled

ALL = frozenset((1, 2, 3, 4))
ROTATIONS = range(4)
SERVERS = sorted(ALL)
EACH = list(product(ROTATIONS, SERVERS))


def holding(homes: Homes, *, without: tuple[int, ...] = ()) -> dict[int, set[int]]:
    """What servers hold if the record is right, except that the servers in `without` hold nothing."""
    return {number: set(homes[number - 1]) - set(without) for number in PIECE_NUMBERS}


def among(holders: dict[int, set[int]], answering: frozenset[int]) -> dict[int, set[int]]:
    return {number: have & answering for number, have in holders.items()}


def carried_out(holders: dict[int, set[int]], transfers: tuple[Transfer, ...]) -> dict[int, set[int]]:
    after = {number: set(have) for number, have in holders.items()}
    for transfer in transfers:
        if transfer.sources:
            after[transfer.number].add(transfer.target)
    return after


@pytest.mark.parametrize("x", ROTATIONS)
def test_nothing_is_done_where_all_is_well(x: int) -> None:
    assert missing(ring(x), ring(x), holding(ring(x)), ALL) == ()
    assert settled(ring(x), ring(x), holding(ring(x))) == (ring(x), ())


@pytest.mark.parametrize(("x", "empty"), EACH)
def test_an_empty_server_gets_its_pair_from_the_twins(x: int, empty: int) -> None:
    transfers = missing(ring(x), ring(x), holding(ring(x), without=(empty,)), ALL)
    wanted = {number for number in PIECE_NUMBERS if empty in ring(x)[number - 1]}
    assert {(t.number, t.target) for t in transfers} == {(number, empty) for number in wanted}
    for transfer in transfers:
        (twin,) = set(ring(x)[transfer.number - 1]) - {empty}
        assert transfer.sources == (twin,)


@pytest.mark.parametrize(("x", "away"), EACH)
def test_what_was_written_without_a_server_goes_home_when_it_is_back(x: int, away: int) -> None:
    recorded = place(x, ALL - {away})
    holders = holding(recorded)
    transfers = missing(recorded, ring(x), holders, ALL)
    assert {transfer.target for transfer in transfers} == {away}
    for transfer in transfers:  # the copy that stays is read, and so checked, before the stand-in's copy is dropped
        assert transfer.sources[0] in ring(x)[transfer.number - 1]
    homes, drops = settled(recorded, ring(x), carried_out(holders, transfers))
    assert [set(home) for home in homes] == [set(home) for home in ring(x)]
    assert set(drops) == {
        (number, server) for number in PIECE_NUMBERS for server in set(recorded[number - 1]) - set(ring(x)[number - 1])
    }


@pytest.mark.parametrize(("x", "away"), EACH)
def test_as_long_as_it_is_away_the_record_stays_and_nothing_is_dropped(x: int, away: int) -> None:
    answering = ALL - {away}
    for recorded in (place(x, answering), ring(x)):
        holders = among(holding(recorded), answering)
        assert missing(recorded, ring(x), holders, answering) == ()
        assert settled(recorded, ring(x), holders) == (recorded, ())


@pytest.mark.parametrize(("x", "away", "empty"), [(x, *two) for x in ROTATIONS for two in product(SERVERS, SERVERS)])
def test_a_stand_in_that_lost_its_copy_gets_it_again_while_the_home_is_away(x: int, away: int, empty: int) -> None:
    if away == empty:
        return
    answering = ALL - {away}
    recorded = place(x, answering)
    transfers = missing(recorded, ring(x), holding(recorded, without=(empty,)), answering)
    wanted = {number for number in PIECE_NUMBERS if empty in recorded[number - 1]}
    assert {(t.number, t.target) for t in transfers} == {(number, empty) for number in wanted}


def test_a_copy_that_could_not_be_made_leaves_the_stand_in_where_it_is() -> None:
    recorded = place(0, ALL - {2})
    holders = holding(recorded)
    assert settled(recorded, ring(0), holders) == (recorded, ())


def test_superfluous_copies_are_dropped_only_where_both_homes_have_theirs() -> None:
    holders = holding(ring(0))
    holders[1].add(3)
    assert settled(ring(0), ring(0), holders).drops == ((1, 3),)
    holders[1].remove(ring(0)[0][0])
    assert settled(ring(0), ring(0), holders).drops == ()
    assert settled(ring(0), ring(0), among(holders, ALL - {ring(0)[0][0]})).drops == ()


def test_a_piece_that_no_server_has_is_reported() -> None:
    holders = holding(ring(0))
    holders[2].clear()
    assert [(t.number, t.sources) for t in missing(ring(0), ring(0), holders, ALL)] == [(2, ()), (2, ())]
    assert settled(ring(0), ring(0), holders) == (ring(0), ())
    assert copies(holders) == 0


@pytest.mark.parametrize("x", ROTATIONS)
@pytest.mark.parametrize("answering", [ALL - set(away) for count in range(3) for away in combinations(SERVERS, count)])
def test_rules_in_every_state(x: int, answering: frozenset[int]) -> None:
    """Whatever is recorded and wherever the copies are: no good copy is overwritten; the record names two servers, each
    of which has the piece or was named before; there are never fewer copies than before; and once carried out, the plan
    is stable."""
    records = [ring(x), *(place(x, ALL - {away}) for away in SERVERS)]
    subsets = [set(some) for count in range(5) for some in combinations(SERVERS, count)]
    for recorded, have in product(records, subsets):
        holders = among(dict.fromkeys(PIECE_NUMBERS, have), answering)
        transfers = missing(recorded, ring(x), holders, answering)
        for transfer in transfers:
            assert transfer.target in answering
            assert transfer.target not in holders[transfer.number]
            assert set(transfer.sources) == holders[transfer.number]
        after = carried_out(holders, transfers)
        for state in (holders, after):  # after all copies failed, and after none did
            homes, drops = settled(recorded, ring(x), state)
            for number in PIECE_NUMBERS:
                named, kept = set(homes[number - 1]), set(state[number])
                assert len(homes[number - 1]) == len(named) == 2
                assert named <= kept | set(recorded[number - 1])
                left = kept - {server for dropped, server in drops if dropped == number}
                assert len(left) >= min(2, len(kept))
                named_before = set(recorded[number - 1]) & set(ring(x)[number - 1])
                assert named_before <= named  # otherwise a healer might rely on what another drops
                if left != kept:
                    assert left == named == set(ring(x)[number - 1])
        homes, drops = settled(recorded, ring(x), after)
        final = {number: after[number] - {server for n, server in drops if n == number} for number in PIECE_NUMBERS}
        if have & answering:
            assert missing(homes, ring(x), final, answering) == ()
        assert settled(homes, ring(x), final) == (homes, ())
