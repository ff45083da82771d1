"""The state of a client of the log: what a batch is to change, what was learnt, and how far it knows the log.

Pure: plain values without rules of their own. The procedures of `writing`, `reading` and `rounds` decide.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.limits import QUORUM, SERVERS
from dfs_server.protocol.messages import Change
from dfsfuse.log.proposer import Point
from dfsfuse.net.health.health import Spared
from dfsfuse.net.health.server import ServerHealth

RECENT_BATCHES: Final = 64
START: Final = Point(0, batches.NO_BATCH)


def _spared_until_they_answer() -> Spared:
    """For callers without a clock: what a separate client knows."""
    return Spared({id: ServerHealth(lambda: 0.0, lambda: 0) for id in range(1, SERVERS + 1)}, "log")


class Contents(msgspec.Struct, frozen=True):
    """What a batch is to change."""

    puts: tuple[tuple[bytes, bytes], ...] = ()
    deletes: tuple[bytes, ...] = ()
    drops: tuple[bytes, ...] = ()
    pieces: tuple[InlinePiece, ...] = ()


@dataclass(slots=True)
class News:
    """What was learnt about others' (and our own recovered) batches since it was last taken."""

    changes: list[Change] = field(default_factory=list)
    forget: bool = False
    """Whether we were too far behind to learn every change: anything may have changed."""


@dataclass(slots=True)
class LogState:
    """What a client knows of its namespace's log."""

    client: bytes
    quorum: int = QUORUM
    known: Point = START
    """The last batch that we know to be chosen, with all before it."""
    ballot: Ballot | None = None
    """The ballot under which, as far as we know, a quorum lets us propose."""
    highest: Ballot = ZERO
    wants_lease: bool = False
    """Whether this client will answer operations before it commits them."""
    leased: bool = False
    """Whether a quorum gave us the lease with the last commit. (Not if another client finished our batch.)"""
    wanted: bool = False
    """Whether the servers said with the last commit that another client waits to write."""
    recalled: bool = False
    """Whether they said that another client waits to see what was answered under the lease."""
    terms: int = 0
    """How often this client has become the one that may propose."""
    sequence: int = 0
    full: set[int] = field(default_factory=set)
    """Servers whose disk is so full that even the log cannot grow there."""
    spared: Spared = field(default_factory=_spared_until_they_answer)
    """Servers that recently kept a caller waiting: they are not waited for where it is possible to go on without
    them."""
    witnesses: frozenset[int] = frozenset()
    """Of the last look at the end of the log, if no quorum answered: see `Survey.witnesses`."""
    copies: int = 0
    """How many copies of the map this client has begun; with its id, the id of the next one."""
    news: News = field(default_factory=News)
    recent: deque[tuple[int, bytes]] = field(default_factory=deque)
    """The last batches that this client got chosen, with their slots, for servers that lack no more than these. All of
    them fit into one frame."""
    recent_bytes: int = 0
    """Their total length."""

    def proposed(self, slot: int, encoded: bytes) -> None:
        """Record a chosen batch of ours."""
        if self.recent and self.recent[-1][0] != slot - 1:
            self.recent.clear()
            self.recent_bytes = 0
        self.recent.append((slot, encoded))
        self.recent_bytes += len(encoded)
        while self.recent_bytes > batches.MAX_BATCH_BYTES or len(self.recent) > RECENT_BATCHES:
            self.recent_bytes -= len(self.recent.popleft()[1])

    def recent_from(self, slot: int) -> tuple[bytes, ...]:
        """Return the recent batches from this slot on; none if they do not reach back that far."""
        if not self.recent or slot < self.recent[0][0]:
            return ()
        return tuple(encoded for at, encoded in self.recent if at >= slot)

    def learnt(self, change: Change) -> None:
        """Record the next batch known to be chosen."""
        self.news.changes.append(change)
        self.known = Point(change.slot, change.digest)

    def take_news(self) -> News:
        """Return what was learnt since the last call."""
        news, self.news = self.news, News()
        return news

    def next_copy(self) -> bytes:
        """Return an id for a copy of the map."""
        self.copies += 1
        return self.client + self.copies.to_bytes(4, "big")

    def jump(self, point: Point) -> None:
        """Forget, since much was missed, and continue from here."""
        self.news.forget = True
        self.known = point
