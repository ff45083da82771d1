"""The cost of an operation, as counts and as rows of a Markdown table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

NOTHING: Final = "-"
HEADINGS: Final = (
    "operation",
    *("requests", "slots", "fsyncs", "hand-overs", "round trips"),
    *("later: requests", "slots", "fsyncs", "hand-overs"),
)


@dataclass(frozen=True)
class Cost:
    """Counts for one mount and all four servers."""

    requests: Mapping[str, int] = field(default_factory=dict)
    """Number of requests by the name of the message."""
    slots: int = 0
    """Number of batches added to the log."""
    fsyncs: int = 0
    """Number of fsyncs of all four servers together."""
    hand_overs: int = 0
    """Number of times that a thread of the mount woke another."""
    round_trips: float = 0
    """Number of answers that are waited for one after another. Differences are rounded, since each reading of the clock
    takes a little time (`lockstep`), which would add up."""

    def __sub__(self, other: Self) -> Cost:
        counts = {name: count - other.requests.get(name, 0) for name, count in self.requests.items()}
        return Cost(
            {name: count for name, count in counts.items() if count},
            self.slots - other.slots,
            self.fsyncs - other.fsyncs,
            self.hand_overs - other.hand_overs,
            round(self.round_trips - other.round_trips),
        )

    def cells(self) -> list[str]:
        """Return five cells of a row."""
        ordered = sorted(self.requests.items(), key=lambda item: (-item[1], item[0]))
        requests = ", ".join(f"{count} {name}" for name, count in ordered)
        return [requests or NOTHING, *(str(count or NOTHING) for count in self._counts())]

    def _counts(self) -> tuple[float, ...]:
        return self.slots, self.fsyncs, self.hand_overs, self.round_trips

    @classmethod
    def from_cells(cls, requests: str, *counts: str) -> Self:
        """The inverse of `cells`."""
        pairs = (part.split() for part in requests.split(", ") if part != NOTHING)
        return cls(
            {name: int(count) for count, name in pairs}, *(0 if count == NOTHING else int(count) for count in counts)
        )

    def differences(self, allowed: Cost) -> list[str]:
        """Return a sentence for each count that differs from what is allowed."""
        names = sorted(self.requests.keys() | allowed.requests.keys())
        pairs = {f"{name} requests": (self.requests.get(name, 0), allowed.requests.get(name, 0)) for name in names}
        pairs["slots"] = self.slots, allowed.slots
        pairs["fsyncs"] = self.fsyncs, allowed.fsyncs
        pairs["hand-overs"] = self.hand_overs, allowed.hand_overs
        pairs["round trips"] = self.round_trips, allowed.round_trips
        return [
            f"{what} {'grew' if found > was else 'fell'} from {was} to {found}"
            for what, (found, was) in pairs.items()
            if found != was
        ]


class Line(NamedTuple):
    """An operation: its cost until it returns, and the cost of what follows in the tenth of a second after that."""

    name: str
    now: Cost
    later: Cost

    def row(self) -> str:
        """Return the row as Markdown."""
        return _row(self.name, *self.now.cells(), *self.later.cells()[:-1])

    @classmethod
    def from_row(cls, row: str) -> Self:
        """The inverse of `row`."""
        name, *cells = (cell.strip() for cell in row.strip().strip("|").split("|"))
        return cls(name, Cost.from_cells(*cells[:5]), Cost.from_cells(*cells[5:]))

    def differences(self, allowed: Line) -> list[str]:
        """The differences of the costs."""
        return [
            *(f"until it returns, {what}" for what in self.now.differences(allowed.now)),
            *(f"afterwards, {what}" for what in self.later.differences(allowed.later)),
        ]


def format_table(lines: Iterable[Line]) -> str:
    """Return the whole table as Markdown."""
    under = ("---" if heading in ("operation", "requests", "later: requests") else "---:" for heading in HEADINGS)
    return "\n".join([_row(*HEADINGS), "|" + "|".join(under) + "|", *(line.row() for line in lines), ""])


def parse_table(text: str) -> dict[str, Line]:
    """Return the lines by name."""
    lines = (Line.from_row(row) for row in text.splitlines()[2:])
    return {line.name: line for line in lines}


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
