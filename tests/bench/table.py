"""Turns single measurements into rows of the table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.steps.content import SECONDS, Step


@dataclass(frozen=True)
class Measurement:
    """A step at one place in one run."""

    step: str
    place: str
    run: int
    per_second: float
    seconds: float
    cpu_s: float
    """Processor seconds of the place's servers and mount together; if the step remounts, of the new mount."""


@dataclass(frozen=True)
class Memory:
    """The memory of a place's processes at the end, in MiB."""

    place: str
    resident_mib: float


@dataclass(frozen=True)
class Row:
    """A step: by place the median of all runs, the lowest, the highest, and the median of the processor seconds."""

    step: str
    unit: str
    is_seconds: bool
    """Whether the values are seconds, of which fewer are better; otherwise they are counts per second."""
    medians: dict[str, float]
    lowest: dict[str, float]
    highest: dict[str, float]
    cpu_s: dict[str, float]

    def ratio(self, place: str, other: str) -> float | None:
        """Return how many times as fast as another a place is; None if one of them was not measured."""
        if place not in self.medians or other not in self.medians:
            return None
        ratio = self.medians[place] / self.medians[other]
        return 1 / ratio if self.is_seconds else ratio


def rows_of(steps: Sequence[Step], found: Sequence[Measurement]) -> list[Row]:
    """Return a row for each step that was measured anywhere."""
    rows = []
    for step in steps:
        is_seconds = step.unit == SECONDS
        values: dict[str, list[float]] = {}
        cpu: dict[str, list[float]] = {}
        for one in found:
            if one.step == step.name:
                values.setdefault(one.place, []).append(one.seconds if is_seconds else one.per_second)
                cpu.setdefault(one.place, []).append(one.cpu_s)
        if values:
            rows.append(
                Row(
                    step=step.name,
                    unit=step.unit if is_seconds else f"{step.unit}/s",
                    is_seconds=is_seconds,
                    medians={place: round(statistics.median(each), 3) for place, each in values.items()},
                    lowest={place: round(min(each), 3) for place, each in values.items()},
                    highest={place: round(max(each), 3) for place, each in values.items()},
                    cpu_s={place: round(statistics.median(each), 2) for place, each in cpu.items()},
                )
            )
    return rows
