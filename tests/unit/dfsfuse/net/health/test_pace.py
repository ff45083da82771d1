"""Patience grows with the usual latency."""

from __future__ import annotations

import pytest

from dfsfuse.net.health.pace import Pace


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


def test_one_slow_server_does_not_raise_the_patience_and_most_of_them_do() -> None:
    pace = Pace(0.3)
    for _ in range(50):
        for server, took_s in ((1, 0.01), (2, 0.01), (3, 2.0), (4, 0.01)):
            pace.note(1000, took_s, server)
    assert pace.patience_s(1000) == 0.3
    for _ in range(50):
        for server in (1, 2, 4):
            pace.note(1000, 1.0, server)
    assert pace.patience_s(1000) == pytest.approx(3.0, rel=0.01)
