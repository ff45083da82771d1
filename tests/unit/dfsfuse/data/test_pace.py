"""Patience grows with what is usual; suspicion grows with each lapse and ends with an answer."""

from __future__ import annotations

import pytest

from dfsfuse.data.pace import FIRST_SUSPICION_S, LONGEST_SUSPICION_S, Pace, Suspects


def test_patience_never_falls_below_the_floor() -> None:
    pace = Pace(0.3)
    assert pace.patience_s(65536) == 0.3
    for _ in range(100):
        pace.note(65536, 0.001, 1)
    assert pace.patience_s(65536) == 0.3


def test_on_a_slow_link_patience_grows_for_requests_of_that_size() -> None:
    pace = Pace(0.3)
    for number in range(50):
        pace.note(1 << 20, 2.0, number % 4 + 1)
    assert pace.patience_s(1 << 20) == pytest.approx(6.0)
    assert pace.patience_s(65536) == 0.3


def test_one_slow_answer_does_not_change_much() -> None:
    pace = Pace(0.3)
    pace.note(1000, 0.2, 1)
    pace.note(1000, 1.2, 1)
    assert pace.patience_s(1000) == pytest.approx(1.2)


def test_one_slow_server_makes_nobody_patient_and_most_of_them_do() -> None:
    pace = Pace(0.3)
    for _ in range(50):
        for server, took_s in ((1, 0.01), (2, 0.01), (3, 2.0), (4, 0.01)):
            pace.note(1000, took_s, server)
    assert pace.patience_s(1000) == 0.3
    for _ in range(50):
        for server in (1, 2, 4):
            pace.note(1000, 1.0, server)
    assert pace.patience_s(1000) == pytest.approx(3.0, rel=0.01)


def test_a_suspect_is_spared_for_a_while() -> None:
    suspects = Suspects()
    suspects.lagged(3, 100.0)
    assert suspects.now(100.0) == {3}
    assert suspects.now(100.0 + FIRST_SUSPICION_S) == frozenset()


def test_suspicion_doubles_up_to_a_limit() -> None:
    suspects = Suspects()
    now = 0.0
    for span_s in (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, LONGEST_SUSPICION_S):
        suspects.lagged(3, now)
        suspects.lagged(3, now + 0.1)  # others waited for it too: the same lapse
        assert suspects.now(now + span_s - 0.01) == {3}
        assert suspects.now(now + span_s) == frozenset()
        now += span_s


def test_an_answer_in_time_clears_the_suspicion() -> None:
    suspects = Suspects()
    suspects.lagged(3, 0.0)
    suspects.answered(3)
    assert suspects.now(0.1) == frozenset()
    suspects.lagged(3, 1.0)
    assert suspects.now(1.0 + FIRST_SUSPICION_S) == frozenset()
