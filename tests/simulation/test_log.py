"""The log's promises, in virtual time: see `scenario`. A failing seed is replayed by `run(seed)`."""

from __future__ import annotations

import os

import pytest

from .scenario import run
from .world import SimulationError

SEEDS = int(os.environ.get("DFS_SEEDS", "500"))


@pytest.mark.parametrize("part", range(5))
def test_linearizable_and_nothing_lost_under_faults(part: int) -> None:
    acknowledged = faults = 0
    for seed in range(part * SEEDS // 5, (part + 1) * SEEDS // 5):
        try:
            report = run(seed)
        except SimulationError as error:
            raise SimulationError(f"seed {seed}: {error}") from error
        acknowledged += report.count("ok")
        faults += sum(report.faults.values())
    assert acknowledged > SEEDS // 5 * 10, "the clients hardly got anything done: the runs show nothing"
    assert faults > SEEDS // 5, "hardly anything was broken: the runs show nothing"


def _caught(**broken: object) -> str:
    for seed in range(200):
        try:
            run(seed, **broken)  # type: ignore[arg-type]
        except SimulationError as error:
            return str(error)
    return ""


def test_a_quorum_of_two_is_caught() -> None:
    assert _caught(quorum=2)


def test_a_promise_that_is_not_durable_is_caught() -> None:
    assert _caught(forget_promises=True)


def test_same_seed_same_run() -> None:
    first, second = run(7), run(7)
    assert first.history == second.history
    assert first.delivered == second.delivered
