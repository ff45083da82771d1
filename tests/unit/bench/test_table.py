"""The benchmark's table: medians, and what counts as faster."""

from __future__ import annotations

import pytest
from bench.steps.content import SECONDS, Step
from bench.table import Measurement, Row, rows_of


def _nothing(*_: object) -> tuple[float, float]:
    raise AssertionError("nothing is measured here")


RATE = Step("create", "small", "files", _nothing)
TIME = Step("copy", "tree", SECONDS, _nothing)
NOWHERE = Step("not measured", "tree", SECONDS, _nothing)


def _measured(step: Step, place: str, run: int, count: float, seconds: float) -> Measurement:
    return Measurement(step.name, place, run, count / seconds, seconds, cpu_s=seconds / 2)


FOUND = [
    *(_measured(RATE, "ours", run, 100, seconds) for run, seconds in enumerate((1.0, 4.0, 2.0))),
    *(_measured(RATE, "peer", run, 100, seconds) for run, seconds in enumerate((5.0, 4.0, 2.0))),
    *(_measured(TIME, place, 0, 1, seconds) for place, seconds in {"ours": 2.0, "peer": 3.0}.items()),
]


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.step: row for row in rows_of([RATE, TIME, NOWHERE], FOUND)}


def test_a_row_has_the_median_the_lowest_and_the_highest(rows: dict[str, Row]) -> None:
    row = rows["create"]
    assert (row.medians, row.lowest["ours"], row.highest["ours"]) == ({"ours": 50.0, "peer": 25.0}, 25.0, 100.0)
    assert row.cpu_s == {"ours": 1.0, "peer": 2.0}
    assert row.unit == "files/s"


def test_of_what_takes_its_time_the_seconds_are_shown(rows: dict[str, Row]) -> None:
    assert (rows["copy"].unit, rows["copy"].medians) == ("s", {"ours": 2.0, "peer": 3.0})


def test_what_was_measured_nowhere_has_no_row(rows: dict[str, Row]) -> None:
    assert list(rows) == ["create", "copy"]


def test_a_ratio_above_one_is_faster_whatever_is_shown(rows: dict[str, Row]) -> None:
    assert rows["create"].ratio("ours", "peer") == 2.0
    assert rows["copy"].ratio("ours", "peer") == 1.5
    assert rows["copy"].ratio("ours", "another") is None
