"""The rules of a proposer: what the servers' replies add up to.

Pure, like the acceptor (`dfs_server.store.acceptor`): no socket, clock, thread or randomness. Each class collects the
replies to one round of requests and says what follows from them so far; `dfsfuse.log.writing` and `reading` decide
what is sent.

Quorum: any three of four servers. Two quorums have two servers in common, so one of the four may lose its memory (a new
disk) and the other one still remembers.

- `Prepare`: phase 1. May we propose under this ballot, and is there something to finish first?
- `Propose`: phase 2. Is this batch chosen at this slot?

`dfsfuse.log.survey` asks where the log ends, without proposing anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.limits import QUORUM
from dfs_server.protocol.messages import Accepted, AcceptedAt, Behind, Position, Promised, Refused, Reply

NEAR_SLOTS = 64
"""A server that lacks at most this many batches is brought up to date in a moment, while an operation waits."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Undecided yet: wait for further replies."""


@dataclass(frozen=True, slots=True)
class NoQuorum:
    """Too few servers answer: at most `answered`, with those that still may."""

    answered: int


@dataclass(frozen=True, slots=True)
class Outranked:
    """A server has promised this higher ballot to another client."""

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Leased:
    """Another client holds the writer lease: wait. It has been notified."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the log: the batch with this digest is chosen at this slot. Slot 0 is the empty log."""

    slot: int
    digest: bytes


@dataclass(slots=True)
class Round:
    """The servers that were asked: which still owe an answer, and which will not give one."""

    quorum: int = QUORUM
    waiting: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)

    def fail(self, server: int) -> None:
        """Record that this server will not answer."""
        self.waiting.discard(server)
        self.failed.add(server)

    def give_up_waiting(self) -> None:
        """Decide without the rest, which has been silent for a while."""
        self.failed |= self.waiting
        self.waiting.clear()

    def could_decide(self) -> bool:
        """Return whether it is worthwhile to decide without those that have not answered yet, if they stay silent."""
        return False

    def needs_all(self) -> bool:
        """Whether also a server that was slow lately is to be waited for, for a moment: each answer counts."""
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
class Prepare(Round):
    """Phase 1 of one ballot."""

    ballot: Ballot = field(kw_only=True)
    promised: dict[int, Promised] = field(default_factory=dict)
    outranked: Ballot | None = None
    leased: bool = False

    def receive(self, server: int, reply: Reply) -> None:
        """Process a reply to the `Promise` request."""
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
        """Return whether another client has the lease, and the last answer would hardly change that; or a quorum has
        promised, and those that are a little behind can be brought up to date: see `Propose.could_decide`."""
        return self.leased or self._near() >= self.quorum

    def verdict(self) -> Pending | Won | Outranked | Leased | NoQuorum:
        """Return what the replies amount to so far."""
        if len(self.promised) >= self.quorum:
            won = self._won()
            if len(self.promised) - len(won.behind) < self.quorum:
                if self.waiting:
                    return Pending()  # the last one may be decisive
                if self._near() < self.quorum and (refused := self._refused()) is not None:
                    # a server that refuses now may promise in a moment; thousands of batches take longer
                    return refused
            return won
        if self.outranked is not None:
            return Outranked(self.outranked)
        if self.leased and len(self.promised) + len(self.waiting) < self.quorum:
            return Leased()
        if len(self.promised) + len(self.waiting) < self.quorum:
            return NoQuorum(len(self.promised) + len(self.waiting))
        return Pending()

    def _near(self) -> int:
        """Return how many have promised that could accept at once, or in a moment."""
        newest = max((reply.applied for reply in self.promised.values()), default=0)
        return sum(newest - reply.applied <= NEAR_SLOTS for reply in self.promised.values())

    def _refused(self) -> Leased | Outranked | None:
        if self.leased:
            return Leased()
        return None if self.outranked is None else Outranked(self.outranked)

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
    """Return whether this server can accept at the slot after `base`: it has applied that, or will when it hears of its
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
    """A server has already applied this slot: others went on meanwhile."""


@dataclass(slots=True)
class Propose(Round):
    """Phase 2 of one batch at one slot under one ballot."""

    slot: int = field(kw_only=True)
    digest: bytes = field(kw_only=True)
    accepted: set[int] = field(default_factory=set)
    leasing: set[int] = field(default_factory=set)
    """Those of them that newly took it from us: what others gave a server brings no lease."""
    behind: dict[int, int] = field(default_factory=dict)
    """Servers that lack batches before this one, and the slot they have applied."""
    outranked: Ballot | None = None
    overtaken: bool = False
    wanted: bool = False
    """Whether another client waits for the lease."""
    recalled: bool = False
    """Whether another client waits to see what was answered under it."""

    def receive(self, server: int, reply: Reply) -> None:
        """Process a reply to the `Accept` request."""
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
        """Return whether servers that are a little behind can be brought up to date, and then make the quorum; or one
        has refused.

        A server that is far behind is no reason to stop waiting for a slow one: what it lacks may take much longer.
        """
        near = sum(self.slot - applied <= NEAR_SLOTS for applied in self.behind.values())
        return (near > 0 and len(self.accepted) + near >= self.quorum) or self.outranked is not None

    def verdict(self) -> Pending | IsChosen | Outranked | Overtaken | NoQuorum:
        """Return what the replies amount to so far."""
        if len(self.accepted) >= self.quorum:
            return IsChosen()
        possible = len(self.accepted) + len(self.waiting)
        if self.outranked is not None and possible < self.quorum:
            # one refusal is not enough: it may come from a server that gave us no lease
            return Outranked(self.outranked)
        if self.overtaken:
            return Overtaken()
        if possible >= self.quorum or (self.waiting and possible + len(self.behind) >= self.quorum):
            return Pending()  # even if servers must be brought up to date for it: by one that has accepted
        return NoQuorum(possible)
