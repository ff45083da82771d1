"""The rules of an acceptor: what a server may promise and accept, and what follows for its log.

Multi-Paxos (Lamport, "Paxos Made Simple", 2001; Lamport, "The Part-Time Parliament", 1998) with the clients as
proposers. Pure: a function takes the state and a request and hands back the state after it, the effects to make
durable *before* the reply is sent, and the reply. It knows no disk, socket, clock or thread; the store carries out the
effects of one step in one transaction.

The log is accepted slot by slot: an acceptor holds at most one batch that it does not yet know to be chosen, the
tail, at slot `applied + 1`. A proposer that is at slot s knows that s - 1 is chosen, and says so by naming
its digest in the batch for s (`Batch.previous`).

The writer lease: for `LEASE_S` after an accept with which a writer wants it, the promises that other clients ask for
are refused, so that a writer at work need not fear to be outranked, and may answer operations before they are
committed. That somebody was refused is told to the writer with its next replies; when it lets go, the next of them in
the order of their ids (`_first_after`) has the lease for a moment. A lease is forgotten when the server stops, so one
that starts behaves as if the last writer had one. The log's safety never rests on it: an accept under a ballot that is
high enough is accepted, lease or not.

Invariants, which docs/consistency.md builds on:
- `promised` never falls, and no batch is accepted under a ballot below it.
- under one ballot at most one batch is accepted at a slot.
- only a chosen batch is applied, in the order of slots, and each follows the one that its `previous` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.batches import NO_BATCH, Batch
from dfs_server.protocol.limits import LEASE_S
from dfs_server.protocol.messages import (
    Accepted,
    AcceptedAt,
    Behind,
    Error,
    Position,
    Promised,
    Refused,
    Reply,
)
from dfs_server.protocol.status import Status


class ParsedBatch(msgspec.Struct, frozen=True):
    """A batch as it came, what it says, and its digest."""

    encoded: bytes
    batch: Batch
    digest: bytes

    @classmethod
    def of(cls, encoded: bytes) -> ParsedBatch:
        """Parse bytes from anyone. Raises `BadBatchError`."""
        return cls(encoded, batches.decode(encoded), batches.digest(encoded))


class Tail(msgspec.Struct, frozen=True):
    """The batch accepted after the last chosen one, and under which ballot."""

    slot: int
    ballot: Ballot
    parsed: ParsedBatch


NEXT_TURN_S: Final = 0.25
"""How long the client that is next in turn has for its promise."""


class Lease(msgspec.Struct, frozen=True):
    """Until then (the server's clock, seconds) only this client is promised anything. `wanted_by`: who is next of those
    who have asked: in a round of all clients in the order of their ids, so that every server says the same one.
    `recalled`: somebody must see what was answered under it, so it should be let go at once. `number`: which lease of
    this server it is."""

    client: bytes
    until: float
    wanted_by: bytes = b""
    recalled: bool = False
    number: int = 0


class AcceptorState(msgspec.Struct, frozen=True):
    """All that an acceptor must never forget; and the lease, which it may forget when it stops."""

    promised: Ballot = ZERO
    applied: int = 0
    digest: bytes = NO_BATCH
    tail: Tail | None = None
    lease: Lease | None = None
    leases: int = 0
    """How many leases there have been since the server started."""

    def position(self, lease: int = 0) -> Position:
        """This state as a reply."""
        tail_digest = self.tail.parsed.digest if self.tail else NO_BATCH
        return Position(self.applied, self.digest, self.promised, tail_digest, lease)


class SavePromise(msgspec.Struct, frozen=True):
    """Effect: remember that nothing below this ballot may be accepted."""

    ballot: Ballot


class SaveTail(msgspec.Struct, frozen=True):
    """Effect: write this batch into the log at its slot, in the place of any other."""

    tail: Tail


class Apply(msgspec.Struct, frozen=True):
    """Effect: the batch is chosen at `slot`: its changes go into the map, and it into the log unless it `is_logged`."""

    slot: int
    parsed: ParsedBatch
    is_logged: bool


Effect = SavePromise | SaveTail | Apply


class Step(msgspec.Struct, frozen=True):
    """What a request leads to."""

    state: AcceptorState
    reply: Reply
    effects: tuple[Effect, ...] = ()

    @property
    def must_be_durable(self) -> bool:
        """Whether the reply speaks for what is on the disk. All but applying the tail: that it is chosen can be learnt
        again, but a promise, a vote, or a batch that was missed and is here now may be what others rely on."""
        return any(not (isinstance(effect, Apply) and effect.is_logged) for effect in self.effects)


def promise(state: AcceptorState, ballot: Ballot, now: float) -> Step:
    """Phase 1. Promising the same ballot again is no change."""
    lease = state.lease
    if lease is not None and now < lease.until and lease.client != ballot.client:
        wanted_by = _first_after(lease.client, lease.wanted_by or ballot.client, ballot.client)
        wait_ms = int((lease.until - now) * 1000) + 1
        return Step(replace(state, lease=replace(lease, wanted_by=wanted_by)), Refused(state.promised, wait_ms))
    if ballot < state.promised:
        return Step(state, Refused(state.promised))
    tail = state.tail
    reply = Promised(
        state.applied,
        state.digest,
        Accepted(tail.slot, tail.ballot, tail.parsed.encoded) if tail else None,
    )
    if ballot == state.promised:
        return Step(state, reply)
    return Step(replace(state, promised=ballot), reply, (SavePromise(ballot),))


def _first_after(holder: bytes, *clients: bytes) -> bytes:
    """Whose turn it is after the holder's. Servers hear of who waits in different orders; were it the first one that
    asked, two could each be next on two servers, and both would wait until both turns have run out."""
    return min(clients, key=lambda client: (client <= holder, client))


def accept(
    state: AcceptorState, ballot: Ballot, slot: int, parsed: ParsedBatch, now: float, *, lease: bool = False
) -> Step:
    """Phase 2. Accepting the same batch under the same ballot again is no change but for the lease."""
    if ballot < state.promised:
        return Step(state, Refused(state.promised))
    if slot <= state.applied:
        return Step(state, state.position())
    effects: list[Effect] = []
    tail, applied, digest = state.tail, state.applied, state.digest
    if tail is not None and slot == tail.slot + 1 and parsed.batch.previous == tail.parsed.digest:
        effects.append(Apply(tail.slot, tail.parsed, is_logged=True))
        applied, digest = tail.slot, tail.parsed.digest
        tail = None
    if slot != applied + 1:
        return Step(state, Behind(applied))
    if parsed.batch.previous != digest:
        return Step(state, _diverged(state, slot))
    held, leases = _leased(state, ballot.client, now) if lease else (state.lease, state.leases)
    taken = AcceptedAt(slot, bool(lease and held and held.wanted_by), bool(lease and held and held.recalled))
    if tail is not None and tail.ballot == ballot:
        state = AcceptorState(state.promised, applied, digest, tail, held, leases)
        if tail.parsed.digest == parsed.digest:
            return Step(state, taken)
        return Step(state, Error(Status.BAD_REQUEST, f"two batches for slot {slot} under ballot {ballot}"))
    if ballot > state.promised:
        effects.append(SavePromise(ballot))
    accepted = Tail(slot, ballot, parsed)
    effects.append(SaveTail(accepted))
    return Step(AcceptorState(ballot, applied, digest, accepted, held, leases), taken, tuple(effects))


def position(state: AcceptorState, recall: bytes, now: float) -> Step:
    """Where the log stands; and, for a client that must see all that was answered, whether another one may have
    answered something that is not in the log yet: that one is told to commit it and let go."""
    lease = state.lease
    if not recall or lease is None or now >= lease.until or lease.client == recall or not lease.number:
        return Step(state, state.position())
    if not lease.recalled:
        state = replace(state, lease=replace(lease, recalled=True))
    return Step(state, state.position(lease.number))


def let_go(state: AcceptorState, client: bytes, slot: int, now: float) -> AcceptorState:
    """The writer has no need of its lease any more: it is the next one's turn. If it has written on after `slot`, the
    message was late, and is about an earlier lease."""
    lease = state.lease
    if lease is None or lease.client != client or state.applied > slot:
        return state
    if state.tail is not None and state.tail.slot > slot:
        return state
    turn = Lease(lease.wanted_by, now + NEXT_TURN_S) if lease.wanted_by else None
    return replace(state, lease=turn)


def started(state: AcceptorState, now: float) -> AcceptorState:
    """The server has started and cannot know what lease it gave: as if the last writer had just been at work."""
    if not state.applied and state.tail is None:
        return state
    last = state.tail.ballot if state.tail is not None else state.promised
    return replace(state, lease=Lease(last.client, now + LEASE_S, number=1), leases=1)


def _leased(state: AcceptorState, client: bytes, now: float) -> tuple[Lease, int]:
    """This client's lease begins anew; and how many there have been. Who wants it is remembered while the writer is the
    same."""
    lease = state.lease
    if lease is not None and lease.client == client and lease.number and now < lease.until:
        return Lease(client, now + LEASE_S, lease.wanted_by, lease.recalled, lease.number), state.leases
    number = state.leases + 1
    return Lease(client, now + LEASE_S, number=number), number


def chosen(state: AcceptorState, slot: int, digest: bytes) -> Step:
    """The batch with this digest is chosen at `slot`: apply it, if it is the one accepted there."""
    tail = state.tail
    if tail is None or tail.slot != slot or tail.parsed.digest != digest:
        return Step(state, state.position())
    state = _applied(state, slot, tail.parsed)
    return Step(state, state.position(), (Apply(slot, tail.parsed, is_logged=True),))


def learn(state: AcceptorState, first: int, chosen_batches: Sequence[ParsedBatch]) -> Step:
    """Apply the chosen batches that were missed. Those applied already are passed over, those after a gap too."""
    effects: list[Effect] = []
    for slot, parsed in enumerate(chosen_batches, first):
        if slot <= state.applied:
            continue
        if slot > state.applied + 1:
            break
        if parsed.batch.previous != state.digest:
            return Step(state, _diverged(state, slot), tuple(effects))
        effects.append(Apply(slot, parsed, is_logged=_is(state.tail, parsed)))
        state = _applied(state, slot, parsed)
    return Step(state, state.position(), tuple(effects))


def copied(state: AcceptorState, slot: int, digest: bytes) -> AcceptorState:
    """The map was replaced by a copy as of `slot`. Promises stand; a tail that the copy covers is done with."""
    tail = state.tail if state.tail is not None and state.tail.slot > slot else None
    return replace(state, applied=slot, digest=digest, tail=tail)


def _applied(state: AcceptorState, slot: int, parsed: ParsedBatch) -> AcceptorState:
    """After `slot` is applied. A tail at this slot is either this batch or one that lost: gone in both cases."""
    return replace(state, applied=slot, digest=parsed.digest, tail=None)


def _is(tail: Tail | None, parsed: ParsedBatch) -> bool:
    return tail is not None and tail.parsed.digest == parsed.digest


def _diverged(state: AcceptorState, slot: int) -> Error:
    return Error(
        Status.DIVERGED,
        f"the batch for slot {slot} does not follow what this server holds at slot {state.applied}: "
        "its folder is of another namespace or of another time",
    )
