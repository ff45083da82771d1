"""The threads of a mount's upkeep go on after a failure, and end when they are asked to."""

from __future__ import annotations

import threading

import pytest

from dfsfuse.common.worker import Worker
from dfsfuse.errors import StoppedError

DEADLINE_S = 20.0


def test_a_step_that_fails_is_told_of_and_the_next_one_comes_until_one_is_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    again = threading.Event()
    taken = []

    def step() -> None:
        taken.append(len(taken))
        if taken == [0]:
            raise ValueError("unheard of")
        again.set()
        raise StoppedError

    thread = Worker("upkeep", 0.0, "tidying")
    thread.start(step)
    assert again.wait(DEADLINE_S)
    thread._thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert taken == [0, 1]
    assert "tidying failed unexpectedly; it goes on" in caplog.text
    assert "unheard of" in caplog.text


def test_a_worker_asked_to_stop_takes_no_further_step() -> None:
    taken = []

    def step() -> None:
        taken.append(thread.wait(0.0))
        begun.set()
        if thread.wait(DEADLINE_S):
            raise StoppedError

    begun = threading.Event()
    thread = Worker("upkeep", 0.0, "tidying")
    thread.start(step)
    assert begun.wait(DEADLINE_S)
    thread.close()
    assert not thread.is_alive()
    assert taken == [False]


def test_one_that_never_began_ends_too_and_a_long_pause_does_not_delay_the_end() -> None:
    Worker("upkeep", 0.0, "tidying").close()
    thread = Worker("upkeep", 3600.0, "tidying")
    thread.start(lambda: None)
    thread.close()
    assert not thread.is_alive()


def test_one_that_is_woken_takes_a_step_and_otherwise_waits_as_long_as_it_is_told() -> None:
    pauses = iter([None, 0.0, None])
    third_pause, taken = threading.Event(), []

    def pause_s() -> float | None:
        pause = next(pauses)
        if len(taken) == 2:
            third_pause.set()
        return pause

    worker = Worker("upkeep", pause_s, "tidying", stop_s=None)
    worker.wake()
    worker.start(lambda: taken.append(worker.is_stopping()))
    assert third_pause.wait(DEADLINE_S)
    worker.close()
    assert taken == [False, False] and worker.is_stopping() and not worker.is_alive()
