"""The steps that the map's client (`client`, `refreshing`, `committing`, `worker`) wants carried out.

Pure: the client's procedures are generators that know no lock, thread, socket or clock of their own. Between two steps
a procedure runs as one: nothing else of this client runs meanwhile. At a step other procedures of the same client may
go on, and the state may be another one afterwards.

    yield WithLog(procedure)      -> what the procedure returns, carried out while no other one uses the log
    yield CatchUp(recall, along)  -> `QuorumLog.catch_up`: whether a quorum said where the log ends; and the reply to a
                                  `Beside` that was sent along, if any
    yield FetchKeys(keys)         -> `QuorumLog.read_keys`
    yield FetchRange(start, ...)  -> `QuorumLog.read_range`
    yield LearnUntil(slot)        `QuorumLog.learn_until`
    yield Commit(contents, ...)   -> `QuorumLog.commit`: whether the batch is chosen
    yield Lead()                  `QuorumLog.lead`
    yield Settle()                `QuorumLog.settle`
    yield Beside(point, fetch)    -> `QuorumLog.read_beside`: a server's reply as of this point or later; None if none
                                  comes at once
    yield NotifyChanged(keys)     tell the rest of the mount that another client has changed these keys (None: all)
    yield Pause(seconds)          wait
    yield Linger(seconds)         wait, but not beyond the end of the client
    yield AwaitWork(seconds)      -> whether the worker was woken within this time (None: wait for ever)

Those from CatchUp to Settle use the log: only within WithLog. What a step raises is thrown into the procedure.
`log_map.LogMap` carries them out with locks and a thread, `tests/simulation` does so in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import msgspec

from dfs_server.protocol.messages import ReadKeys, ReadRange
from dfsfuse.log.proposer import Point
from dfsfuse.log.state import Contents, News

T = TypeVar("T")


class WithLog(msgspec.Struct, frozen=True):
    """See the module, as for the others."""

    procedure: Generator[Step, Any, Any]


class FetchKeys(msgspec.Struct, frozen=True):
    """Read some keys."""

    keys: tuple[bytes, ...]

    def at(self, point: Point) -> ReadKeys:
        """The request for them at a point of the log, or later."""
        return ReadKeys(point.slot, point.digest, self.keys)


class FetchRange(msgspec.Struct, frozen=True):
    """Read a page of a range."""

    start: bytes
    end: bytes
    limit: int
    join: bytes = b""
    """Fetch the items that its items name, too (`ReadRange.join`); with `join_key`, only what this one names."""
    join_key: bytes = b""

    def at(self, point: Point) -> ReadRange:
        """The request for it at a point of the log, or later."""
        return ReadRange(point.slot, point.digest, self.start, self.end, self.limit, self.join, self.join_key)


class Beside(msgspec.Struct, frozen=True):
    """Read something from one server, while others may use the log."""

    point: Point
    fetch: FetchKeys | FetchRange


class CatchUp(msgspec.Struct, frozen=True):
    """A look at the end of the log."""

    recall: bool
    along: Beside | None = None


class LearnUntil(msgspec.Struct, frozen=True):
    """Learn what other clients have changed up to this slot at least, if a server still knows."""

    slot: int


class Commit(msgspec.Struct, frozen=True):
    """Propose a batch, unless what it rests on conflicts with the news."""

    contents: Contents
    conflicts: Callable[[News], bool]


class Lead(msgspec.Struct, frozen=True):
    """Become the writer, which decides whether a batch in doubt was made."""


class Settle(msgspec.Struct, frozen=True):
    """Tell the servers that the last batch is chosen, and release the lease."""


class NotifyChanged(msgspec.Struct, frozen=True):
    """Another client has changed these keys (None: perhaps all)."""

    keys: list[bytes] | None


class Pause(msgspec.Struct, frozen=True):
    """Wait."""

    seconds: float


class Linger(msgspec.Struct, frozen=True):
    """The worker waits."""

    seconds: float


class AwaitWork(msgspec.Struct, frozen=True):
    """The worker waits for work."""

    seconds: float | None


LogStep = CatchUp | FetchKeys | FetchRange | LearnUntil | Commit | Lead | Settle
Step = WithLog | LogStep | Beside | NotifyChanged | Pause | Linger | AwaitWork
Procedure = Generator[Step, Any, T]
