"""The threads of a mount's upkeep go on after a failure, and end when they are asked to."""

from __future__ import annotations

import threading

import pytest

from dfsfuse.common import worker
from dfsfuse.common.worker import Worker
from dfsfuse.errors import StoppedError

DEADLINE_S = 20.0


def test_a_step_that_fails_is_told_of_and_the_next_one_comes_until_one_is_stopped(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
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


def test_a_worker_that_was_never_started_can_be_closed_and_a_long_pause_does_not_delay_the_end() -> None:
    Worker("upkeep", 0.0, "tidying").close()
    thread = Worker("upkeep", 3600.0, "tidying")
    thread.start(lambda: None)
    thread.close()
    assert not thread.is_alive()


def test_after_an_unexpected_failure_the_worker_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    thread = Worker("upkeep", 0.0, "tidying", stop_s=None)
    monkeypatch.setattr(thread._stop, "wait", done.append)

    def step() -> None:
        done.append("step")
        raise StoppedError if done.count("step") == 3 else ValueError("unheard of")

    thread.start(step)
    thread._thread.join(DEADLINE_S)
    assert done == ["step", worker.RETRY_S, "step", worker.RETRY_S, "step"]


def test_closing_does_not_wait_for_the_pause_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RETRY_S", 3600.0)
    failed = threading.Event()

    def step() -> None:
        failed.set()
        raise ValueError("unheard of")

    thread = Worker("upkeep", 0.0, "tidying", stop_s=None)
    thread.start(step)
    assert failed.wait(DEADLINE_S)
    thread.close()
    assert not thread.is_alive()


def test_a_worker_that_ends_with_a_step_takes_it_even_if_it_was_woken_just_before() -> None:
    taken: list[bool] = []
    thread = Worker("upkeep", None, "tidying", stop_s=None, ends_with_step=True)
    thread.start(lambda: taken.append(thread.is_stopping()))
    thread.close()
    assert taken == [True]
    busy, go = threading.Event(), threading.Event()

    def step() -> None:
        taken.append(thread.is_stopping())
        busy.set()
        assert go.wait(DEADLINE_S)

    thread = Worker("upkeep", 0.0, "tidying", stop_s=0.0, ends_with_step=True)
    thread.start(step)
    assert busy.wait(DEADLINE_S)
    thread.close()
    go.set()
    thread._thread.join(DEADLINE_S)
    assert taken == [True, False, True], "work that came during the previous step needs one more step"


def test_it_is_started_once_and_not_after_it_was_closed() -> None:
    taken: list[str] = []
    thread = Worker("upkeep", None, "tidying", stop_s=None, ends_with_step=True)
    thread.start(lambda: taken.append("first"))
    thread.start(lambda: taken.append("second"))
    thread.close()
    thread.start(lambda: taken.append("third"))
    assert taken == ["first"] and thread.is_started
    closed = Worker("upkeep", 0.0, "tidying")
    closed.close()
    closed.start(lambda: taken.append("fourth"))
    assert not closed.is_started and not closed.is_alive()


def test_one_that_is_woken_takes_a_step_and_otherwise_waits_as_long_as_it_is_told() -> None:
    pauses = iter([None, 0.0, None])
    third_pause, taken = threading.Event(), []

    def pause_s() -> float | None:
        pause = next(pauses)
        if len(taken) == 2:
            third_pause.set()
        return pause

    thread = Worker("upkeep", pause_s, "tidying", stop_s=None)
    thread.wake()
    thread.start(lambda: taken.append(thread.was_woken))
    assert third_pause.wait(DEADLINE_S)
    thread.close()
    assert taken == [True, False] and thread.is_stopping() and not thread.is_alive()
