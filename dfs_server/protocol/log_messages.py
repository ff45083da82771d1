"""The messages of the log and of the map. Each request has one reply of the type named in its docstring, or an `Error`.

Where a message speaks of a server's log, `slot` counts from 1 and 0 means "nothing yet". Pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.message import MAX_AT_ONCE, Message

# ------------------------------------------------------------------ the log


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """A batch that an acceptor has accepted and does not yet know to be chosen."""

    slot: int
    ballot: Ballot
    batch: bytes


class Promise(Message, frozen=True):
    """Paxos phase 1: promise to accept nothing below `ballot`. Reply: `Promised` or `Refused`."""

    ballot: Ballot


class Promised(Message, frozen=True):
    """The promise is durable. `applied` and `digest` are the last slot known to be chosen; `tail` what came after."""

    applied: int
    digest: bytes
    tail: Accepted | None = None


class Refused(Message, frozen=True):
    """A higher ballot was promised: `promised`. Or, with `wait_ms`, another client holds the writer lease for so long
    at most; it has been told, or will be with its next accept, that somebody waits."""

    promised: Ballot
    wait_ms: int = 0


class Accept(Message, frozen=True):
    """Paxos phase 2: accept `batch` at `slot`. Reply: `AcceptedAt`, `Refused`, `Behind` or `Position`.

    The batch names the digest of the one before it, which is chosen: the acceptor may apply that one now. `Position`
    is the answer to a slot that is applied already (the proposer is behind). `lease`: the client wants the writer
    lease.
    """

    ballot: Ballot
    slot: int
    batch: bytes
    lease: bool = False


class AcceptedAt(Message, frozen=True):
    """The batch and all it carries are durable at this slot. `wanted`: another client waits for the lease. `recalled`:
    another client waits to see what was answered under it. `full`: only the reserve is left on the server's disk, which
    is for batches that delete."""

    slot: int
    wanted: bool = False
    recalled: bool = False
    full: bool = False


class Behind(Message, frozen=True):
    """The server has applied only up to this slot and needs to learn the next ones first."""

    applied: int


class Chosen(Message, frozen=True):
    """The batch with this digest is chosen at `slot`: apply it if you have accepted it. Reply: `Position`.

    `let_go`: the id of the client that sends this, if it gives up its writer lease.
    """

    slot: int
    digest: bytes
    let_go: bytes = b""


class Learn(Message, frozen=True):
    """Chosen batches from slot `first` on, for a server that missed them. Reply: `Position`. At most 10,000."""

    first: int
    batches: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_AT_ONCE)]


class GetPosition(Message, frozen=True):
    """Reply: `Position`. `recall`: the id of a client that must see all that a writer has answered under its lease."""

    recall: bytes = b""


class Position(Message, frozen=True):
    """Where the server's log stands. `tail_digest` is empty if nothing is accepted after `applied`.

    `lease`, told to who recalls only: the number of the lease that another client holds now, or 0. Leases of a server
    are numbered on, so another number says that the one before has ended. `wants_copy`: the server's map is damaged,
    and is not read until a copy is in its place.
    """

    applied: int
    digest: bytes
    promised: Ballot
    tail_digest: bytes = b""
    lease: int = 0
    wants_copy: bool = False


class GetBatches(Message, frozen=True):
    """Chosen batches after slot `after`, as many as fit in a frame. Reply: `Batches`; `Error` TRIMMED."""

    after: int


class Batches(Message, frozen=True):
    """Chosen batches from slot `first` on, and the slot the server has applied."""

    first: int
    batches: tuple[bytes, ...]
    applied: int


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What a chosen batch changed, without the values."""

    slot: int
    digest: bytes
    author: bytes
    sequence: int
    keys: tuple[bytes, ...]


class GetChanges(Message, frozen=True):
    """Which keys changed after slot `after`, up to `slot` (whose batch has `digest`) or later?

    Reply: `Changes`, `Behind`; `Error` TRIMMED.
    """

    after: int
    slot: int
    digest: bytes


class Changes(Message, frozen=True):
    """The changes after the slot asked for, in order, as many as fit; and the slot the server has applied."""

    changes: tuple[Change, ...]
    applied: int


# ------------------------------------------------------------------ the map


class ReadKeys(Message, frozen=True):
    """The values of `keys` at `slot` (whose batch has `digest`) or later. Reply: `Values` or `Behind`; `Error`
    BAD_REQUEST if they are more than fits. At most 10,000 keys."""

    slot: int
    digest: bytes
    keys: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_AT_ONCE)]


class Values(Message, frozen=True):
    """A value or None for each key asked for, all at slot `applied`."""

    applied: int
    values: tuple[bytes | None, ...]


class ReadRange(Message, frozen=True):
    """The items with start <= key < end, in order, at `slot` or later; at most `limit`. Reply: `Items` or `Behind`."""

    slot: int
    digest: bytes
    start: bytes
    end: bytes
    limit: int


class Items(Message, frozen=True):
    """Items of a range, all at slot `applied`. `more` says that the range goes on after the last of them."""

    applied: int
    items: tuple[tuple[bytes, bytes], ...]
    more: bool


class BeginCopy(Message, frozen=True):
    """Start a copy of the map as of `slot`, in the place of one that has not moved for 5 s. Reply: `Done`; `Error`
    COPYING if another client's copy still moves.

    `copy` is a random id made by the sender: two clients that copy to one server at once must not mix their pages.
    """

    copy: bytes
    slot: int
    digest: bytes


class CopyItems(Message, frozen=True):
    """Further items of the copy under way. Reply: `Done`; `Error` BAD_REQUEST if another copy has begun. At most
    10,000."""

    copy: bytes
    items: Annotated[tuple[tuple[bytes, bytes], ...], msgspec.Meta(max_length=MAX_AT_ONCE)]


class EndCopy(Message, frozen=True):
    """Put the copy in the place of the map. Reply: `Position`; `Error` BAD_REQUEST if it is not whole, TRIMMED if the
    server needs it though it is of an earlier slot than its own, and no longer has the batches since.

    `count` is how many items it has in all. They were read while the log went on, up to slot `read_until`: the server
    answers no reads before it has applied that slot, since until then the map is a mixture.
    """

    copy: bytes
    count: int
    read_until: int


LogRequest = (
    Promise
    | Accept
    | Chosen
    | Learn
    | GetPosition
    | GetBatches
    | GetChanges
    | ReadKeys
    | ReadRange
    | BeginCopy
    | CopyItems
    | EndCopy
)
LogReply = Promised | Refused | AcceptedAt | Behind | Position | Batches | Changes | Values | Items
