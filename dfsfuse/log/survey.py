"""Where the log ends according to a quorum: a linearizable read of its length, without proposing anything.

Pure, like `dfsfuse.log.proposer`: it collects the replies to one round of requests and says what follows from them so
far. docs/consistency.md, section 3, explains why this is correct.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dfs_server.protocol.limits import SERVERS
from dfs_server.protocol.messages import Position, Reply
from dfsfuse.log.proposer import NoQuorum, Pending, Point, Round


@dataclass(frozen=True, slots=True)
class Newest:
    """The log ends here: whatever was acknowledged before the survey began is at or before this point."""

    point: Point
    holders: frozenset[int]
    """Servers that have the batch, applied or as their tail."""


@dataclass(frozen=True, slots=True)
class InDoubt:
    """There is a batch after the last chosen one that may or may not be chosen: its writer is active, or died."""


@dataclass(slots=True)
class Survey(Round):
    """Where the log ends according to a quorum."""

    known: Point = field(kw_only=True)
    leases: dict[int, int] | None = None
    """The number of each server's lease when it was first asked, if that matters; those asked now are added."""
    positions: dict[int, Position] = field(default_factory=dict)

    def receive(self, server: int, reply: Reply) -> None:
        """Process a reply to the `GetPosition` request."""
        self.waiting.discard(server)
        if isinstance(reply, Position):
            self.positions[server] = reply
        else:
            self.failed.add(server)

    def could_decide(self) -> bool:
        """Return whether a quorum has answered, and is in doubt: the last one may know, or may be the one that hangs;
        or there will be no quorum, and what some have said must do: for a client that knows how far the log went a
        while ago. One that knows nothing yet could not distinguish an old state from the last one, and waits for all
        that answer."""
        found, possible = len(self.positions), len(self.positions) + len(self.waiting)
        return found >= self.quorum or (self.known.slot > 0 and 0 < found <= possible < self.quorum)

    def needs_all(self) -> bool:
        """Return whether no quorum has answered: only what all who do answer say together may do instead."""
        return len(self.positions) < self.quorum

    def verdict(self) -> Pending | Newest | InDoubt | NoQuorum:
        """Return what the replies amount to so far."""
        if len(self.positions) < self.quorum:
            return Pending() if self.waiting else NoQuorum(len(self.positions))
        if self.waiting and not self.is_free():
            return Pending()  # the last one may be decisive: another one has just started, and knows less
        base = self.best()
        tails = self._tails(base)
        if not tails:
            return Newest(base, self._holders(base))
        digest, votes = tails.most_common(1)[0]
        if votes >= self.quorum:
            point = Point(base.slot + 1, digest)
            return Newest(point, self._holders(point))
        # Even a single vote may be all that is left of a chosen batch, if other servers have lost their memory since.
        return Pending() if self.waiting else InDoubt()

    def witnesses(self) -> frozenset[int]:
        """Servers that show, without a quorum, that the log ends at `best()`; none if these do not.

        Every quorum has one of any two servers in it. So if two have answered and neither holds a batch after the best
        point, no other batch was chosen, unless one of the two has forgotten what it accepted: to see to that is the
        caller's part. (Of three, one may have forgotten: that is why a quorum is asked as a rule.)
        """
        enough = len(self.positions) > SERVERS - self.quorum
        return frozenset(self.positions) if enough and not self._tails(self.best()) else frozenset()

    def _tails(self, base: Point) -> Counter[bytes]:
        """Return the batches that servers hold after the base, and how many hold each."""
        return Counter(
            reply.tail_digest
            for reply in self.positions.values()
            if reply.tail_digest and reply.applied == base.slot and reply.tail_digest != base.digest
        )

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
        """Return the furthest point that is certainly chosen: what the caller knows, or a server has applied."""
        applied = [Point(reply.applied, reply.digest) for reply in self.positions.values()]
        return max([self.known, *applied], key=lambda point: point.slot)

    def appliers(self) -> frozenset[int]:
        """Return the servers that have applied the best point."""
        best = self.best().slot
        return frozenset(server for server, reply in self.positions.items() if reply.applied >= best)

    def _holders(self, point: Point) -> frozenset[int]:
        return frozenset(
            server
            for server, reply in self.positions.items()
            if reply.applied >= point.slot or (reply.applied + 1 == point.slot and reply.tail_digest == point.digest)
        )
