"""The rules of an acceptor: what a server may promise and accept, and the consequences for its log.

Multi-Paxos (Lamport, "Paxos Made Simple", 2001; Lamport, "The Part-Time Parliament", 1998) with the clients as
proposers. Pure: each function takes the state and a request and returns the new state, the effects to make durable
*before* the reply is sent, and the reply. It uses no disk, socket, clock or thread; the store carries out the effects
of one step in one transaction.

The log is accepted slot by slot: an acceptor holds at most one batch that it does not yet know to be chosen, the tail,
at slot `applied + 1`. A proposer for slot s knows that s - 1 is chosen, and says so by naming its digest in the batch
for s (`Batch.previous`).

The writer lease: for `LEASE_S` after an accept that requests it, promises to other clients are refused, so that an
active writer cannot be outranked, and may answer operations before they are committed. The writer learns from its next
replies that another client was refused; when it releases the lease, the next of the waiting clients in the order of
their ids (`_first_after`) has it for a moment. A lease is forgotten when the server stops, so a starting server behaves
as if the last writer had one. The log's safety never depends on it: an accept under a high enough ballot is accepted,
lease or not.

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
    """A batch as received, its contents, and its digest."""

    encoded: bytes
    batch: Batch
    digest: bytes

    @classmethod
    def of(cls, encoded: bytes) -> ParsedBatch:
        """Parse bytes that may come from anyone. Raises `BadBatchError`."""
        return cls(encoded, batches.decode(encoded), batches.digest(encoded))


class Tail(msgspec.Struct, frozen=True):
    """The batch accepted after the last chosen one, and the ballot under which it was accepted."""

    slot: int
    ballot: Ballot
    parsed: ParsedBatch


NEXT_TURN_S: Final = 0.25
"""How long the client whose turn is next has to request its promise."""


class Lease(msgspec.Struct, frozen=True):
    """Until `until` (the server's clock, seconds) only this client gets promises. `wanted_by`: the next one of the
    waiting clients, in a cyclic order of their ids, so that every server names the same one. `recalled`: another client
    must see what was answered under the lease, so it should be released immediately. `number`: the number of this lease
    on this server."""

    client: bytes
    until: float
    wanted_by: bytes = b""
    recalled: bool = False
    number: int = 0


class AcceptorState(msgspec.Struct, frozen=True):
    """Everything that an acceptor must never forget; and the lease, which it may forget when it stops."""

    promised: Ballot = ZERO
    applied: int = 0
    digest: bytes = NO_BATCH
    tail: Tail | None = None
    lease: Lease | None = None
    leases: int = 0
    """Number of leases since the server started."""

    def position(self, lease: int = 0) -> Position:
        """This state as a reply."""
        tail_digest = self.tail.parsed.digest if self.tail else NO_BATCH
        return Position(self.applied, self.digest, self.promised, tail_digest, lease)


class SavePromise(msgspec.Struct, frozen=True):
    """Effect: remember that nothing below this ballot may be accepted."""

    ballot: Ballot


class SaveTail(msgspec.Struct, frozen=True):
    """Effect: write this batch to the log at its slot, replacing any other."""

    tail: Tail


class Apply(msgspec.Struct, frozen=True):
    """Effect: the batch is chosen at `slot`: apply its changes to the map, and add it to the log unless it
    `is_logged`."""

    slot: int
    parsed: ParsedBatch
    is_logged: bool


Effect = SavePromise | SaveTail | Apply


class Step(msgspec.Struct, frozen=True):
    """The result of a request."""

    state: AcceptorState
    reply: Reply
    effects: tuple[Effect, ...] = ()

    @property
    def must_be_durable(self) -> bool:
        """Whether the reply vouches for what is on disk. True except for applying the tail: that it is chosen can be
        learnt again, but others may rely on a promise, a vote, or a missing batch that has arrived."""
        return any(not (isinstance(effect, Apply) and effect.is_logged) for effect in self.effects)


def promise(state: AcceptorState, ballot: Ballot, now: float) -> Step:
    """Phase 1. Promising the same ballot again changes nothing."""
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
    """Whose turn it is after the holder's. Servers learn of waiting clients in different orders; if the first one to
    ask were next, two clients could each be next on two servers, and both would wait until both turns have expired."""
    return min(clients, key=lambda client: (client <= holder, client))


def accept(
    state: AcceptorState, ballot: Ballot, slot: int, parsed: ParsedBatch, now: float, *, lease: bool = False
) -> Step:
    """Phase 2. Accepting the same batch under the same ballot again changes nothing but the lease."""
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
    """The log's position; and, for a client that must see everything that was answered, whether another client may have
    answered something that is not in the log yet: that client is told to commit it and release its lease."""
    lease = state.lease
    if not recall or lease is None or now >= lease.until or lease.client == recall or not lease.number:
        return Step(state, state.position())
    if not lease.recalled:
        state = replace(state, lease=replace(lease, recalled=True))
    return Step(state, state.position(lease.number))


def let_go(state: AcceptorState, client: bytes, slot: int, now: float) -> AcceptorState:
    """The writer releases its lease: the next client has its turn. If the writer has written on after `slot`, the
    message was late, and refers to an earlier lease."""
    lease = state.lease
    if lease is None or lease.client != client or state.applied > slot:
        return state
    if state.tail is not None and state.tail.slot > slot:
        return state
    turn = Lease(lease.wanted_by, now + NEXT_TURN_S) if lease.wanted_by else None
    return replace(state, lease=turn)


def started(state: AcceptorState, now: float) -> AcceptorState:
    """The state of a server that has just started and cannot know which lease it gave: as if the last writer had just
    been active."""
    if not state.applied and state.tail is None:
        return state
    last = state.tail.ballot if state.tail is not None else state.promised
    return replace(state, lease=Lease(last.client, now + LEASE_S, number=1), leases=1)


def _leased(state: AcceptorState, client: bytes, now: float) -> tuple[Lease, int]:
    """Begin this client's lease anew, and return it with the number of leases. The waiting client is remembered as long
    as the writer is the same."""
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
    """Apply missing chosen batches. Those already applied are skipped, and so are those after a gap."""
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
    """The state after the map was replaced by a copy as of `slot`. Promises remain; a tail covered by the copy is
    gone."""
    tail = state.tail if state.tail is not None and state.tail.slot > slot else None
    return replace(state, applied=slot, digest=digest, tail=tail)


def _applied(state: AcceptorState, slot: int, parsed: ParsedBatch) -> AcceptorState:
    """The state after `slot` is applied. A tail at this slot is either this batch or one that lost: gone in both
    cases."""
    return replace(state, applied=slot, digest=parsed.digest, tail=None)


def _is(tail: Tail | None, parsed: ParsedBatch) -> bool:
    return tail is not None and tail.parsed.digest == parsed.digest


def _diverged(state: AcceptorState, slot: int) -> Error:
    return Error(
        Status.DIVERGED,
        f"the batch for slot {slot} does not follow what this server holds at slot {state.applied}: "
        "its folder is of another namespace or of another time",
    )
