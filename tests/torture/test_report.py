"""What is counted during which fault, and how the report shows it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .history import CALM, PROMISED_S, History, Weather
from .report import Report
from .test_plan import Clock


def wait(clock: Clock, seconds: float) -> None:
    clock.now += seconds


def test_what_a_hanging_server_cost_stands_beside_what_the_machine_did(tmp_path: Path) -> None:
    clock = Clock()
    weather = Weather(clock)
    history = History(tmp_path / "history.jsonl", weather, clock)

    def take(seconds: float, verb: str) -> None:
        history.call("w0", "one", verb, "x", lambda: wait(clock, seconds))

    take(0.25, "list")
    take(PROMISED_S + 0.5, "write")
    with weather.spell("freeze"):
        take(PROMISED_S + 0.25, "create")
        take(0.125, "read")
    wait(clock, 0.5)
    with weather.spell("full disk"):
        take(PROMISED_S + 7, "append")
    history.close()
    assert (history.met[CALM].count, history.met["freeze"].count, history.met["freeze"].slow) == (2, 2, 1)

    lines = Report(7, faults=Counter({"freeze": 1, "full disk": 1}), met=history.met).lines()
    assert "| freeze | 1 | 2 | 1 | 1.25 s (create) |  |" in lines
    assert "| full disk | 1 | 1 | 1 | 8.00 s (append) |  |" in lines
    assert (
        "While one server hung, of 2 operations 1 took longer than 1 s, the longest 1.25 s (create); "
        "in calm, of 2 operations 1, the longest 1.50 s (write)."
    ) in lines
