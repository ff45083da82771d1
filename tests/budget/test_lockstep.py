"""Threads in lockstep: the order in which they run, how much time passes, and what counts as a hand-over."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.lockstep import STUCK

from .measured import TESTS


def run(case: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-m", "budget.lockstep_cases", case]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            "lock_is_handed_over",
            [
                *("work begins", "main lets go", "work has the lock", "1 s"),
                "work woke main 1 x, main woke work 2 x",
            ],
        ),
        ("event_times_out_or_is_set", ["False", "True", "3 s", "work woke main 1 x, main woke work 2 x"]),
        ("sleepers_wake_in_order_of_time", ["1", "2", "3", "3 s"]),
        (
            "executor_works_when_it_is_waited_for",
            ["main waits", "submitted work", "0 s", "work_0 woke main 2 x, main woke work_0 2 x"],
        ),
        ("queue_with_time_out", ["empty", "5 s", ""]),
        ("reentrant_lock", ["1", "0 s", ""]),
    ],
)
def test_what_happens_in_which_order(case: str, said: list[str]) -> None:
    done = run(case)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[: len(said)] == said


def test_a_wait_that_nothing_can_end_is_an_error_with_stacks() -> None:
    done = run("all_wait_for_each_other")
    assert done.returncode == STUCK
    assert "no thread can go on" in done.stderr
    assert "all_wait_for_each_other" in done.stderr
