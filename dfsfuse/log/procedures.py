"""The vocabulary of procedures: the steps that they yield, and the outcomes that they get.

Pure: a procedure is a generator that knows no socket, clock, thread or randomness. Its driver carries out its steps:

    yield Ask(requests)   begins a round: one request to each of these servers. Late replies of earlier rounds are void.
    yield Ask(r, also=True)  asks further servers in the same round
    yield RECEIVE         -> Event: the next reply of this round, or the news that a server will not answer
    yield Pause(attempt)  -> wait a short random time, longer after more attempts: another client is writing
    yield Await(attempt)  -> wait a moment, longer after more attempts, and check for the missing servers

`driving.drive` does so over real connections; the simulation in tests/simulation does so in virtual time.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec

from dfs_server.protocol.messages import Reply, Request

ALL: Final = (1, 2, 3, 4)


class Ask(msgspec.Struct, frozen=True):
    """Begin a round, or ask further servers in the current one (`also`)."""

    requests: Mapping[int, Request]
    also: bool = False


class Receive(msgspec.Struct, frozen=True):
    """Receive the next event of this round; None after a short silence, if `soft`."""

    soft: bool = False


class Pause(msgspec.Struct, frozen=True):
    """Wait a short random time."""

    attempt: int


class Await(msgspec.Struct, frozen=True):
    """Wait for one of the missing servers: too few answer."""

    attempt: int


class Event(NamedTuple):
    """A server's reply in this round; None: it will not answer, or answered with an error, which `why` describes."""

    server: int
    reply: Reply | None
    why: str = ""
    status: int | None = None

    @property
    def is_answer(self) -> bool:
        """Return whether the server has answered, even if only with an error."""
        return self.reply is not None or self.status is not None


RECEIVE: Final = Receive()
RECEIVE_SOFT: Final = Receive(soft=True)
Step = Ask | Receive | Pause | Await
R = TypeVar("R")
Procedure = Generator[Step, Event | None, R]


class DeadlineError(Exception):
    """Thrown into a procedure whose time is up."""
