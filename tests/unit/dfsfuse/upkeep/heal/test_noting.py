"""Bad copies are noted in the map, count as missing, and are replaced by the next healer."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from support.grid import Fault
from support.stored_files import StoredFiles

from dfs_server.protocol.messages import HavePieces
from dfs_server.protocol.pieces import block_digests
from dfsfuse.data.extents import Segment
from dfsfuse.namespace.ops import bad_copies
from dfsfuse.namespace.ops.bad_copies import Place
from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.background import FINDINGS_EVERY_S, FIRST_S, HealingTurn
from dfsfuse.upkeep.heal.bandwidth import Bucket
from dfsfuse.upkeep.heal.healing import Healer
from dfsfuse.upkeep.heal.noting import Noter, believed
from dfsfuse.upkeep.verify import Verifier

LARGE = random.Random(1).randbytes(300_001)
SMALL = random.Random(2).randbytes(9_000)


def healer_of(files: StoredFiles) -> Healer:
    return Healer(files.cluster, files.pages, files.store, clock=files.grid.clock, time_ns=lambda: 7)


def noted(files: StoredFiles) -> frozenset[Place]:
    return files.store.read(bad_copies.find)


def spoil(files: StoredFiles, segment: Segment, number: int, server: int) -> Place:
    """Replace a copy by bytes with matching digests, which the server's own scrub cannot detect."""
    _, data = files.grid[server].stored[segment.id, number]
    data = bytes(len(data))
    files.grid[server].stored[segment.id, number] = (block_digests(data), data)
    return segment.id, number, server


def test_a_note_is_a_key_of_its_own() -> None:
    place = (bytes(range(16)), 3, 4)
    start, end = keys.bad_copies()
    assert start < keys.bad_copy(*place) < end
    assert keys.bad_copy_of(keys.bad_copy(*place)) == place
    assert keys.bad_copy_of(start + b"odd") is None
    assert keys.is_known(keys.bad_copy(*place))
    assert not start <= keys.HEALING < end
    assert keys.family_of(keys.bad_copy(*place)) == start


def test_a_noted_copy_counts_as_missing_until_healing_has_made_it_anew(files: StoredFiles) -> None:
    large, small = files.write(2, 0, LARGE, SMALL)
    places = [spoil(files, large, 1, large.homes[0][0]), spoil(files, small, 3, small.homes[2][1])]
    assert healer_of(files).survey().lacking == 0  # the servers take them for good
    bad_copies.note(files.store, places, 5)
    found = healer_of(files).survey()
    assert (found.lacking, found.to_heal, found.noted) == (2, 2, frozenset(places))
    assert found.needed == Counter([large.homes[0][1], small.homes[2][0]])
    assert found.absent == Counter(server for _, _, server in places)
    report = healer_of(files).heal()
    assert (report.healed, report.still_lacking) == (2, 0)
    files.assert_all_at_home()
    assert noted(files) == frozenset()
    assert healer_of(files).survey().lacking == 0


def test_what_healing_finds_bad_and_cannot_mend_is_noted_once_and_stays(files: StoredFiles) -> None:
    (large,) = files.write(2, 0, LARGE)
    first, second = large.homes[0]
    places = {spoil(files, large, 1, first), spoil(files, large, 1, second)}
    bad_copies.note(files.store, [(large.id, 1, first)], 5)
    for _ in range(2):
        report = healer_of(files).heal()
        assert noted(files) == places
        assert report.still_incomplete == 1
    assert files.store.items[keys.bad_copy(large.id, 1, first)] == (5).to_bytes(8, "big")


def test_a_bad_copy_that_a_reader_found_and_that_could_not_be_replaced_is_noted(files: StoredFiles) -> None:
    (large,) = files.write(2, 0, LARGE)
    first, second = large.homes[0]
    places = {spoil(files, large, 1, first), spoil(files, large, 1, second)}
    healer_of(files).restore([(large, 1, first)])
    assert noted(files) == places
    del files.grid[first].stored[large.id, 1]  # the server itself reports what is missing
    bad_copies.take_back(files.store, sorted(places))
    healer_of(files).restore([(large, 1, first)])
    assert noted(files) == {(large.id, 1, second)}


def test_a_note_about_what_is_no_longer_there_goes_with_the_next_healing_of_everything(files: StoredFiles) -> None:
    files.write(2, 0, SMALL)
    bad_copies.note(files.store, [(b"x" * 16, 1, 2)], 5)
    healer_of(files).heal([2])
    assert noted(files)
    healer_of(files).heal()
    assert not noted(files)


def test_verify_takes_back_what_it_finds_to_be_good_and_names_what_is_to_be_noted(files: StoredFiles) -> None:
    large, small = files.write(2, 0, LARGE, SMALL)
    good = (large.id, 2, large.homes[1][0])
    bad = spoil(files, small, 3, small.homes[2][1])
    del files.grid[large.homes[0][0]].stored[large.id, 1]
    bad_copies.note(files.store, [good], 5)
    verified = Verifier(files.cluster, files.pages).verify({2: b"/2"})
    assert verified.redeemed == [good]
    assert verified.to_note == [bad]


def test_a_mount_heals_what_somebody_else_has_noted_within_a_minute(files: StoredFiles) -> None:
    clock = files.grid.clock

    def wait(seconds: float) -> bool:
        clock.wait_until(clock() + seconds)
        return False

    turn = HealingTurn(files.cluster, files.pages, files.store, bucket=Bucket(None), wait=wait, clock=clock)
    (large,) = files.write(2, 0, LARGE)
    wait(FIRST_S)
    turn.step()
    state = heal_state.decode(files.store.items[keys.HEALING])
    assert state is not None
    assert [one.identity for one in state.servers] == [b"a disk"] * 4
    bad_copies.note(files.store, [spoil(files, large, 1, large.homes[0][0])], 5)
    wait(FINDINGS_EVERY_S)
    turn.step()
    files.assert_all_at_home()
    assert noted(files) == frozenset()


def test_what_readers_find_is_noted_if_no_mount_heals(files: StoredFiles) -> None:
    large, small = files.write(2, 0, LARGE, SMALL)
    bad = spoil(files, large, 1, large.homes[0][0])
    gone = (small.id, 3, small.homes[2][1])
    del files.grid[gone[2]].stored[gone[:2]]
    noter = Noter(files.cluster, files.store, lambda: 9)
    noter.found_bad(large, 1, bad[2])
    noter.found_bad(large, 1, bad[2])
    noter.found_bad(small, 3, gone[2])
    files.store.is_writable = False
    noter.write()
    assert noted(files) == frozenset()
    files.store.is_writable = True
    noter.close()
    assert noted(files) == {bad}


def test_servers_are_asked_for_no_more_than_a_request_may_have(
    files: StoredFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfsfuse.upkeep.heal.noting.MAX_HAVE_PIECES", 2)
    segments = files.write(2, 0, *(SMALL[index:] for index in range(5)))
    places = [(segment.id, 1, server) for segment in segments for server in segment.homes[0]]
    files.grid.forget_requests()
    assert set(believed(files.cluster, places)) == set(places)
    sizes = [len(m.pieces) for one in files.grid.servers.values() for m in one.asked if isinstance(m, HavePieces)]
    assert sum(sizes) == len(places)
    assert max(sizes) == 2
    files.grid[places[0][2]].fault = Fault.DOWN
    assert places[0] not in believed(files.cluster, places)
