"""The rules of a proposer: what the servers' replies add up to.

Pure, like the acceptor (`dfs_server.acceptor`): no socket, clock, thread or randomness. Each class gathers the replies
to one round of requests and says what follows from them so far; `dfsfuse.cluster.log_writing` and
`log_reading` decide what is sent.

Quorum: any three of four servers. Two quorums have two servers in common, so one of the four may lose its memory (a new
disk) and the other one still remembers.

- `Prepare`: phase 1. May we propose under this ballot, and is there something to finish first?
- `Propose`: phase 2. Is this batch chosen at this slot?
- `Survey`: where does the log end? (A linearizable read of its length, without proposing anything.)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.messages import Accepted, AcceptedAt, Behind, Position, Promised, Refused, Reply

SERVERS = 4
QUORUM = 3


@dataclass(frozen=True, slots=True)
class Pending:
    """Nothing can be said yet: wait for further replies."""


@dataclass(frozen=True, slots=True)
class NoQuorum:
    """Too few servers answer: at most `answered`, with those that still may."""

    answered: int


@dataclass(frozen=True, slots=True)
class Outranked:
    """A server has promised this higher ballot to somebody."""

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Leased:
    """Another client holds the writer lease: wait. It has been told."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the log: the batch with this digest is chosen at this slot. Slot 0 is the empty log."""

    slot: int
    digest: bytes


@dataclass(slots=True)
class _Round:
    """Who was asked, who has answered, who will not."""

    quorum: int = QUORUM
    waiting: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    def ask(self, server: int) -> None:
        """This server was asked."""
        self.waiting.add(server)

    def fail(self, server: int) -> None:
        """This server will not answer."""
        self.waiting.discard(server)
        self.failed.add(server)

    def give_up_waiting(self) -> None:
        """The rest has been silent for a while: decide without them."""
        self.failed |= self.waiting
        self.waiting.clear()

    def could_decide(self) -> bool:
        """Whether it is worth deciding without those that have not answered yet, if they stay silent."""
        return False


# ------------------------------------------------------------------ phase 1


@dataclass(frozen=True, slots=True)
class Won:
    """A quorum has promised. The log is chosen up to `base`; `unfinished` may be chosen at the slot after it."""

    base: Point
    holders: frozenset[int]
    """Servers that have applied `base`."""
    behind: frozenset[int]
    """Servers that have promised, and lack batches before the next slot: they can accept nothing there yet."""
    unfinished: Accepted | None


@dataclass(slots=True)
class Prepare(_Round):
    """Phase 1 of one ballot."""

    ballot: Ballot = field(kw_only=True)
    promised: dict[int, Promised] = field(default_factory=dict)
    outranked: Ballot | None = None
    leased: bool = False

    def receive(self, server: int, reply: Reply) -> None:
        """A reply to the `Promise` request."""
        self.waiting.discard(server)
        match reply:
            case Promised():
                self.promised[server] = reply
            case Refused(_, wait_ms) if wait_ms:
                self.leased = True
            case Refused(ballot):
                self.outranked = max(ballot, self.outranked or ballot)
            case _:
                self.failed.add(server)

    def could_decide(self) -> bool:
        """Somebody has the lease, and the last answer would hardly change that. Or a quorum has promised, and who is
        behind can be brought up to date."""
        return self.leased or len(self.promised) >= self.quorum

    def verdict(self) -> Pending | Won | Outranked | Leased | NoQuorum:
        """What the replies say so far."""
        if len(self.promised) >= self.quorum:
            won = self._won()
            if self.waiting and len(self.promised) - len(won.behind) < self.quorum:
                return Pending()  # the last one may be what it takes
            return won
        if self.outranked is not None:
            return Outranked(self.outranked)
        if self.leased and len(self.promised) + len(self.waiting) < self.quorum:
            return Leased()
        if len(self.promised) + len(self.waiting) < self.quorum:
            return NoQuorum(len(self.promised) + len(self.waiting))
        return Pending()

    def _won(self) -> Won:
        newest = max(self.promised.values(), key=lambda reply: reply.applied)
        holders = frozenset(server for server, reply in self.promised.items() if reply.applied == newest.applied)
        # What was accepted after the last slot known to be chosen may be chosen. Of several such batches it is the one
        # with the highest ballot (Paxos made simple, section 2.2); finishing it is right even if it never was.
        tails = [
            reply.tail
            for reply in self.promised.values()
            if reply.tail is not None and reply.tail.slot == newest.applied + 1
        ]
        unfinished = max(tails, key=lambda tail: tail.ballot, default=None)
        base = Point(newest.applied, newest.digest)
        behind = frozenset(server for server, reply in self.promised.items() if not _can_follow(reply, base))
        return Won(base, holders, behind, unfinished)


def _can_follow(reply: Promised, base: Point) -> bool:
    """Whether this server can accept at the slot after `base`: it has applied that, or will when it hears of its
    successor, which names it."""
    tail = reply.tail
    return reply.applied == base.slot or (
        tail is not None and tail.slot == base.slot and batches.digest(tail.batch) == base.digest
    )


# ------------------------------------------------------------------ phase 2


@dataclass(frozen=True, slots=True)
class IsChosen:
    """A quorum has accepted the batch: it is chosen, for good."""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A server has applied this slot already: others went on meanwhile."""


@dataclass(slots=True)
class Propose(_Round):
    """Phase 2 of one batch at one slot under one ballot."""

    slot: int = field(kw_only=True)
    digest: bytes = field(kw_only=True)
    accepted: set[int] = field(default_factory=set)
    leasing: set[int] = field(default_factory=set)
    """Those of them that took it from us just now: what others gave a server brings no lease."""
    behind: dict[int, int] = field(default_factory=dict)
    """Servers that lack batches before this one, and the slot they have applied."""
    outranked: Ballot | None = None
    overtaken: bool = False
    wanted: bool = False
    """Another client waits for the lease."""
    recalled: bool = False
    """Another client waits to see what was answered under it."""

    def receive(self, server: int, reply: Reply) -> None:
        """A reply to the `Accept` request."""
        self.waiting.discard(server)
        match reply:
            case AcceptedAt(slot, wanted, recalled) if slot == self.slot:
                self.accepted.add(server)
                self.leasing.add(server)
                self.wanted = self.wanted or wanted
                self.recalled = self.recalled or recalled
            case Position(applied, digest) if applied == self.slot and digest == self.digest:
                self.accepted.add(server)
            case Position():
                self.overtaken = True
            case Refused(ballot):
                self.outranked = max(ballot, self.outranked or ballot)
            case Behind(applied):
                self.behind[server] = applied
            case _:
                self.failed.add(server)

    def could_decide(self) -> bool:
        """Servers that are behind can be brought up to date, and then make the quorum."""
        return bool(self.behind) and len(self.accepted) + len(self.behind) >= self.quorum

    def verdict(self) -> Pending | IsChosen | Outranked | Overtaken | NoQuorum:
        """What the replies say so far."""
        if len(self.accepted) >= self.quorum:
            return IsChosen()
        if self.outranked is not None:
            return Outranked(self.outranked)
        if self.overtaken:
            return Overtaken()
        possible = len(self.accepted) + len(self.waiting)
        if possible >= self.quorum or (self.waiting and possible + len(self.behind) >= self.quorum):
            return Pending()  # also if servers must be brought up to date for it: by one that has accepted
        return NoQuorum(possible)


# ------------------------------------------------------------------ where the log ends


@dataclass(frozen=True, slots=True)
class Newest:
    """The log ends here: whatever was acknowledged before the survey began is at or before this point."""

    point: Point
    holders: frozenset[int]
    """Servers that have the batch, applied or as their tail."""


@dataclass(frozen=True, slots=True)
class InDoubt:
    """There is a batch after the last chosen one that may or may not be chosen: its writer is at work, or died."""


@dataclass(slots=True)
class Survey(_Round):
    """Where the log ends, told by a quorum."""

    known: Point = field(kw_only=True)
    leases: dict[int, int] | None = None
    """The number of each server's lease when it was first asked, if that matters; those asked now are added."""
    positions: dict[int, Position] = field(default_factory=dict)

    def receive(self, server: int, reply: Reply) -> None:
        """A reply to the `GetPosition` request."""
        self.waiting.discard(server)
        if isinstance(reply, Position):
            self.positions[server] = reply
        else:
            self.failed.add(server)

    def could_decide(self) -> bool:
        """A quorum has answered, and is in doubt: the last one may know, or may be the one that hangs. Or there will be
        none, and what some have told has to do: for who knows how far the log went a while ago. Who knows nothing yet
        could not tell an old state from the last one, and hears all that answer."""
        found, possible = len(self.positions), len(self.positions) + len(self.waiting)
        return found >= self.quorum or (self.known.slot > 0 and 0 < found <= possible < self.quorum)

    def verdict(self) -> Pending | Newest | InDoubt | NoQuorum:
        """What the replies say so far."""
        if len(self.positions) < self.quorum:
            return Pending() if self.waiting else NoQuorum(len(self.positions))
        if self.waiting and not self.is_free():
            return Pending()  # the last one may be what it takes: another one has just started, and knows less
        base = self.best()
        tails = Counter(
            reply.tail_digest
            for reply in self.positions.values()
            if reply.tail_digest and reply.applied == base.slot and reply.tail_digest != base.digest
        )
        if not tails:
            return Newest(base, self._holders(base))
        digest, votes = tails.most_common(1)[0]
        if votes >= self.quorum:
            point = Point(base.slot + 1, digest)
            return Newest(point, self._holders(point))
        # Even a single vote may be all that is left of a chosen batch, if other servers have lost their memory since.
        return Pending() if self.waiting else InDoubt()

    def is_free(self) -> bool:
        """Whether no other client may still answer under a lease that was there when each server was first asked.

        Number 1 may be what a server that has just started knows of the lease from before: it is no new one.
        """
        leases = self.leases
        if leases is None:
            return True
        for server, reply in self.positions.items():
            leases.setdefault(server, reply.lease)
        free = sum(
            not reply.lease or (reply.lease > 1 and reply.lease != leases[server])
            for server, reply in self.positions.items()
        )
        return free >= min(self.quorum, len(self.positions))

    def best(self) -> Point:
        """The furthest point that is certainly chosen: what the caller knows, or a server has applied."""
        applied = [Point(reply.applied, reply.digest) for reply in self.positions.values()]
        return max([self.known, *applied], key=lambda point: point.slot)

    def appliers(self) -> frozenset[int]:
        """Servers that have applied the best point."""
        best = self.best().slot
        return frozenset(server for server, reply in self.positions.items() if reply.applied >= best)

    def _holders(self, point: Point) -> frozenset[int]:
        return frozenset(
            server
            for server, reply in self.positions.items()
            if reply.applied >= point.slot or (reply.applied + 1 == point.slot and reply.tail_digest == point.digest)
        )
