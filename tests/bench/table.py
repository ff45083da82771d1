"""From single measurements to the rows of the table. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.steps.content import SECONDS, Step


@dataclass(frozen=True)
class Measurement:
    """One step at one place in one run."""

    step: str
    place: str
    run: int
    per_second: float
    seconds: float
    cpu_s: float
    """Used by the place's servers and mount together; of a mount that is mounted anew in the step, by the new one."""


@dataclass(frozen=True)
class Memory:
    """What the processes of a place have in memory at the end, in MiB."""

    place: str
    resident_mib: float


@dataclass(frozen=True)
class Row:
    """One step: by place the median of all runs, the lowest, the highest, and the median of the processor seconds."""

    step: str
    unit: str
    is_seconds: bool
    """Whether the values are seconds, of which less is better; else they are so many a second."""
    medians: dict[str, float]
    lowest: dict[str, float]
    highest: dict[str, float]
    cpu_s: dict[str, float]

    def ratio(self, place: str, other: str) -> float | None:
        """How many times as fast a place is as another one; None if one of them was not measured."""
        if place not in self.medians or other not in self.medians:
            return None
        ratio = self.medians[place] / self.medians[other]
        return 1 / ratio if self.is_seconds else ratio


def rows_of(steps: Sequence[Step], found: Sequence[Measurement]) -> list[Row]:
    """A row for each step that was measured somewhere."""
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
