"""The choices that the nemesis and the writers draw from a seed, and what excuses a failure."""

from __future__ import annotations

import errno
from itertools import islice
from pathlib import Path

import pytest
from support.clock import Clock

from . import contents
from .choices import CHANGES, FILE_MAX_BYTES, NAMES_MAX, Choices
from .contest import RECORD_BYTES, Scores
from .history import AFTERMATH_S, History, Met, ViolationError, Weather
from .model import State, apply
from .nemesis import ONE, ROUND, TWO, plan

# ------------------------------------------------------------------ the plan


def test_the_same_seed_gives_the_same_faults() -> None:
    assert list(islice(plan(7, has_disks=True), 50)) == list(islice(plan(7, has_disks=True), 50))
    assert list(islice(plan(7, has_disks=True), 50)) != list(islice(plan(8, has_disks=True), 50))


def test_every_kind_comes_and_two_at_once_now_and_then() -> None:
    faults = list(islice(plan(1, has_disks=True), (ROUND + 1) * len(TWO) * 2))
    assert {fault.kind for fault in faults} == {*ONE, *TWO}
    for position, fault in enumerate(faults, 1):
        assert (len(fault.servers) > 1) == (position % (ROUND + 1) == 0)
        assert len(set(fault.servers)) == len(fault.servers)


def test_without_disks_of_our_own_none_is_filled_up() -> None:
    assert not any("full" in fault.kind for fault in islice(plan(1, has_disks=False), 100))


# ------------------------------------------------------------------ what writers do


@pytest.mark.parametrize("seed", range(5))
def test_writers_draw_only_what_is_legal_and_keep_within_bounds(seed: int) -> None:
    choices, state, done = Choices(f"test {seed}", 0), State(), set()
    for _ in range(200):
        verb = choices.verb()
        operation = choices.operation(verb, state) if verb in CHANGES and verb != "replace" else None
        if operation is None:
            continue
        state = apply(state, operation)  # fails an assertion or raises KeyError if not legal
        done.add(operation.verb)
        assert len(state.names) <= NAMES_MAX + 1
        assert all(len(data) <= FILE_MAX_BYTES + 5_000 for data in state.contents.values())
    assert len(done) >= 8, done


# ------------------------------------------------------------------ excuses


def test_with_one_server_gone_nothing_may_fail(tmp_path: Path) -> None:
    history = History(tmp_path / "log", Weather())
    with history.weather.spell("kill"), pytest.raises(ViolationError):
        history.excuse("w", "one", "write", history._clock(), OSError(errno.EIO, ""))
    assert "one server at most" in history.violations[0]
    history.close()


def test_with_two_gone_it_may_and_for_a_moment_after(tmp_path: Path) -> None:
    clock = Clock()
    weather = Weather(clock)
    history = History(tmp_path / "log", weather, clock)
    with weather.spell("two killed", rough=True):
        assert history.excuse("w", "one", "write", clock.now, OSError(errno.EROFS, "")) == "EROFS"
        with pytest.raises(ViolationError):
            history.excuse("w", "one", "write", clock.now, OSError(errno.EBADF, ""))
    clock.now += AFTERMATH_S / 2
    assert weather.excuses("one", clock.now)
    clock.now += AFTERMATH_S
    assert not weather.excuses("one", clock.now)
    assert weather.excuses("one", clock.now - 2 * AFTERMATH_S), "the operation had begun before"
    history.close()


def test_a_killed_mount_excuses_no_failure_in_the_other() -> None:
    weather = Weather(Clock())
    with weather.spell("killed mount", rough=True, mount="one"):
        assert weather.excuses("one", 100.0)
        assert not weather.excuses("two", 100.0)


def test_an_operation_that_does_not_end_is_seen_and_one_that_took_long_told(tmp_path: Path) -> None:
    clock = Clock()
    history = History(tmp_path / "log", Weather(clock), clock)

    def hang() -> None:
        clock.now += 31
        assert [late.what for late in history.late()] == ["write f"]

    history.call("w", "one", "write", "f", hang)
    assert "took 31.0 s" in history.violations[0]
    assert not history.late()
    assert history.met == {"calm": Met(1, 1, 31.0, "write f")}
    history.close()


# ------------------------------------------------------------------ two mounts compete


def test_a_name_has_one_winner() -> None:
    scores = Scores()
    assert scores.won(1, "c0", surely=True) == ""
    assert "both" in scores.won(1, "c1", surely=True)
    assert scores.problems_of_names({1: b"c0"}) == []
    assert scores.problems_of_names({1: b"c1"})
    assert scores.problems_of_names({})
    scores.won(2, "c1", surely=False)
    for found in ({}, {2: b""}, {2: b"c1"}):
        assert scores.problems_of_names({1: b"c0"} | found) == []


def test_a_record_is_there_once_and_in_order() -> None:
    scores = Scores()
    one, two, maybe = (contents.make(1, version, 0, RECORD_BYTES) for version in (1, 2, 3))
    scores.added(0, one, surely=True)
    scores.added(0, two, surely=True)
    scores.added(0, maybe, surely=False)
    for good in (one + two, one + two + maybe):
        assert scores.problems_of_records(0, good) == []
    for bad in (one, two + one, one + two + two, one + two + bytes(RECORD_BYTES), (one + two)[:-1]):
        assert scores.problems_of_records(0, bad), bad
