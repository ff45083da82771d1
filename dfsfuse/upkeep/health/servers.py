"""The state of one server as far as it is known now: one of `State`, from what the server says about itself. Pure.

    up        answers, has all of the log, holds all copies that belong there, and has room
    behind    answers, and does not have all of the log yet
    empty     answers, and has nothing of what the others have, like a new disk; or its map is damaged and not read
    filling   answers and has all of the log; copies of data that belong there are missing
    full      answers and has all of the log; only its reserve is left, so it takes no data
    refused   answers, and rejects the user or password
    wrong     something answers that is not the server which the config names
    down      does not answer; `reason` says what happened instead
    unknown   was not asked

A server that is behind or empty comes before one that is full: what it lacks of the log matters more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dfs_server.protocol.messages import ServerStatus

LEVEL_SLACK: Final = 1
"""The last batch is applied together with the next one: a server that lacks one has it nevertheless."""


class State(StrEnum):
    """See the module."""

    UP = "up"
    BEHIND = "behind"
    EMPTY = "empty"
    FILLING = "filling"
    FULL = "full"
    REFUSED = "refused"
    WRONG = "wrong"
    DOWN = "down"
    UNKNOWN = "unknown"


ANSWERING: Final = frozenset({State.UP, State.BEHIND, State.EMPTY, State.FILLING, State.FULL})
LEVEL: Final = frozenset({State.UP, State.FILLING, State.FULL})
"""These have all of the log: any three of them make a quorum."""
TAKES_BATCHES: Final = LEVEL | {State.BEHIND}
TAKES_DATA: Final = frozenset({State.UP, State.BEHIND, State.FILLING})


@dataclass(frozen=True)
class Server:
    """One of the four."""

    name: str
    state: State
    reason: str = ""
    """In a few words, why it is of no use; empty if it answers."""
    behind: int = 0
    """How many changes of the log it lacks."""
    lacks: int = 0
    """How many copies that belong there it does not have, as far as they were counted."""

    @property
    def words(self) -> str:
        """Return the state as shown in a table."""
        match self.state:
            case State.UP:
                return "ok"
            case State.BEHIND:
                return f"behind by {self.behind:,}"
            case State.FILLING:
                return f"lacks {self.lacks:,} {'copy' if self.lacks == 1 else 'copies'}"
            case State.REFUSED | State.WRONG | State.DOWN:
                return self.reason or "no answer"
            case _:
                return str(self.state)


def newest_slot(statuses: Iterable[ServerStatus | None]) -> int:
    """Return the last change that any server has."""
    return max((status.applied for status in statuses if status is not None), default=0)


def from_status(name: str, status: ServerStatus, newest: int, lacks: int = 0) -> Server:
    """Return the state of a server that answered `GetStatus`. `newest` is the last change that any of the four has."""
    behind = newest - status.applied
    if is_damaged(status) or (behind > LEVEL_SLACK and not status.applied):
        state = State.EMPTY
    elif behind > LEVEL_SLACK:
        state = State.BEHIND
    elif status.free_bytes == 0:
        state = State.FULL
    else:
        state = State.FILLING if lacks else State.UP
    return Server(name, state, behind=behind if state is State.BEHIND else 0, lacks=lacks)


def is_damaged(status: ServerStatus) -> bool:
    """Return whether its map is damaged and not repaired yet, so that it does not serve its contents."""
    return bool(status.damage) and any(not part.endswith("(mended)") for part in status.damage.split("; "))


def listed(names: Sequence[str], word: str = "and") -> str:
    """Return the names joined as part of a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
