"""Which mount heals, and when: the record in the map and the turns decided by it, with a clock of their own."""

from __future__ import annotations

import msgspec
from support.memory_map import MemoryMap

from dfsfuse.namespace.records import keys
from dfsfuse.upkeep.heal import state as heal_state
from dfsfuse.upkeep.heal.report import Report
from dfsfuse.upkeep.heal.state import SILENT_S, HealState, Step, Turns

FOUND = Report(segments=100, lacking=40, incomplete=2, to_heal=40, bytes_to_copy=8000)


def state_of(run: int, phase: str, beat: int = 0) -> HealState:
    return msgspec.structs.replace(heal_state.beginning(None, FOUND, 7), run=run, phase=phase, beat=beat)


def record_of(run: int, phase: str, beat: int = 0) -> bytes:
    return heal_state.encode(state_of(run, phase, beat))


def test_a_run_from_its_beginning_to_its_end() -> None:
    state = heal_state.beginning(state_of(4, heal_state.DONE), FOUND, 1)
    assert (state.run, state.phase, state.lacking, state.bytes_total, state.left_s) == (5, "healing", 40, 8000, None)
    state = heal_state.going_on(state, Report(healed=10, bytes_copied=2000), ran_s=4.0, now_ns=2)
    assert (state.lacking, state.bytes_done, state.rate_bytes_s, state.left_s) == (30, 2000, 500, 12.0)
    state = heal_state.ended(state, Report(segments=101, still_lacking=3, still_incomplete=1, bytes_copied=7000), 3)
    assert (state.phase, state.segments, state.lacking, state.incomplete, state.left_s) == ("done", 101, 3, 1, None)
    assert heal_state.decode(heal_state.encode(state)) == state


def test_of_two_that_begin_at_once_one_does() -> None:
    store = MemoryMap()
    state = heal_state.beginning(None, FOUND, 1)
    first = store.transact(lambda tx: heal_state.claim(tx, None, state))
    assert first == store.items[keys.HEALING]
    assert store.transact(lambda tx: heal_state.claim(tx, None, state)) is None
    assert store.transact(lambda tx: heal_state.claim(tx, first, state_of(2, "healing"))) is not None


def test_what_is_no_record_of_this_version_is_no_news() -> None:
    assert heal_state.decode(None) is heal_state.decode(b"?") is heal_state.decode(b"\xc1") is None
    other = msgspec.structs.replace(state_of(1, "done"), format=2)
    assert heal_state.decode(heal_state.encode(other)) is None


def test_without_a_reason_it_rests() -> None:
    turns = Turns()
    assert turns.next(None, 0) is turns.next(record_of(3, "healing"), 0) is Step.REST


def test_with_one_it_runs_until_it_is_done() -> None:
    turns = Turns()
    turns.want(record_of(3, "done"))
    assert turns.next(record_of(3, "done"), 0) is Step.RUN
    turns.done()
    assert turns.next(record_of(3, "done"), 0) is Step.REST


def test_while_another_heals_it_waits_and_a_run_that_began_later_is_as_good_as_the_own() -> None:
    turns = Turns()
    turns.want(record_of(3, "done"))
    assert turns.next(record_of(4, "healing"), 0) is Step.WAIT
    assert turns.next(record_of(4, "done"), 1) is Step.REST
    assert not turns.is_wanted


def test_a_run_that_began_before_may_have_missed_it() -> None:
    turns = Turns()
    turns.want(record_of(3, "healing"))
    assert turns.next(record_of(3, "healing"), 0) is Step.WAIT
    assert turns.next(record_of(3, "done"), 1) is Step.RUN


def test_one_that_was_given_up_is_taken_over() -> None:
    turns = Turns()
    turns.want(None)
    assert turns.next(record_of(1, "stopped"), 0) is Step.RUN


def test_one_whose_healer_is_silent_is_taken_over_by_the_own_clock() -> None:
    turns = Turns()
    turns.want(None)
    for second in range(100):  # it is at work: the beat changes each time
        assert turns.next(record_of(1, "healing", beat=second), second) is Step.WAIT
    assert turns.next(record_of(1, "healing", beat=99), 99 + SILENT_S - 1) is Step.WAIT
    assert turns.next(record_of(1, "healing", beat=99), 99 + SILENT_S) is Step.RUN
