"""When a server is tried again."""

from __future__ import annotations

from support.clock import Clock

from dfsfuse.net.health.circuit import EAGER_PAUSE_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, Circuit


def trials(circuit: Circuit, clock: Clock, count: int) -> list[float]:
    """Return the pauses before the next trials, each of which fails."""
    pauses = []
    for _ in range(count):
        before = clock.now
        clock.now = circuit.due_at
        assert circuit.claim()
        circuit.failed("no byte moved", quick=False)
        pauses.append(clock.now - before)
    return pauses


def test_only_the_first_failure_takes_it_down_and_only_the_first_answer_brings_it_back() -> None:
    circuit = Circuit(Clock())
    assert circuit.up
    assert circuit.failed("connection refused", quick=True)
    assert not circuit.failed("no byte moved", quick=False)
    assert not circuit.up
    assert circuit.reason == "no byte moved"
    assert circuit.answered()
    assert not circuit.answered()
    assert circuit.up


def test_pauses_double_up_to_the_longest() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed("no byte moved", quick=False)
    assert trials(circuit, clock, 6) == [FIRST_PAUSE_S, 1.0, 2.0, 4.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_one_trial_at_a_time() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed("no byte moved", quick=False)
    assert not circuit.claim()
    clock.now += FIRST_PAUSE_S
    assert circuit.claim()
    assert not circuit.claim()


def test_refused_connections_cost_nothing_so_the_pause_stays_short() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed("connection refused", quick=True)
    for _ in range(10):
        clock.now += FIRST_PAUSE_S
        assert circuit.claim()
        circuit.failed("connection refused", quick=True)


def test_the_eager_may_try_sooner_what_costs_nothing() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed("connection refused", quick=True)
    assert not circuit.claim(eager=True)
    clock.now += EAGER_PAUSE_S
    assert not circuit.claim()
    assert circuit.claim(eager=True)
    assert not circuit.claim(eager=True)


def test_the_eager_wait_like_others_for_what_hung() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed("no byte moved", quick=False)
    clock.now += FIRST_PAUSE_S - 0.01
    assert not circuit.claim(eager=True)


def test_the_late_claim_only_what_others_left() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed("no byte moved", quick=False)
    clock.now += FIRST_PAUSE_S + 0.9
    assert not circuit.claim(late_s=1.0)
    clock.now += 0.1
    assert circuit.claim(late_s=1.0)


def test_one_that_hangs_again_and_again_is_tried_less_and_less() -> None:
    """It answers small requests and hangs at large ones, so each time it counts as up costs a caller a stall."""
    clock = Clock()
    circuit = Circuit(clock)
    pauses = []
    for _ in range(5):
        circuit.failed("no byte moved", quick=False)
        pauses.append(circuit.due_at - clock.now)
        clock.now = circuit.due_at
        circuit.answered()
    assert pauses == [FIRST_PAUSE_S, 1.0, 2.0, 4.0, LONGEST_PAUSE_S]
    clock.now += STEADY_S
    circuit.failed("no byte moved", quick=False)
    assert circuit.due_at - clock.now == FIRST_PAUSE_S


def test_a_server_that_closed_its_connection_may_be_asked_at_once() -> None:
    """It may be back already; it was not tried yet."""
    circuit = Circuit(Clock())
    circuit.failed("it has closed the connection", quick=True, tried=False)
    assert circuit.claim(eager=True)
    assert not circuit.claim(eager=True)


def test_a_server_that_has_moved_is_tried_at_once_however_long_it_was_down() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    circuit.failed("stalled", quick=False)
    for _ in range(6):
        clock.now += LONGEST_PAUSE_S
        assert circuit.claim()
    assert not circuit.claim()
    circuit.try_soon()
    assert circuit.claim()
    clock.now += FIRST_PAUSE_S
    assert not circuit.claim()  # if it hangs there too, the pause after the first failure applies
    clock.now += FIRST_PAUSE_S
    assert circuit.claim()
