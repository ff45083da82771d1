"""The messages of the log and of the map. Each request has one reply of the type named in its docstring, or an `Error`.

In messages about a server's log, `slot` counts from 1 and 0 means "nothing yet". Pure.
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
    """The promise is durable. `applied` and `digest` are the last slot known to be chosen; `tail` is the batch after
    it, if any."""

    applied: int
    digest: bytes
    tail: Accepted | None = None


class Refused(Message, frozen=True):
    """A higher ballot was promised: `promised`. Or, with `wait_ms`, another client holds the writer lease for at most
    that long; it has been told, or will be with its next accept, that another client waits."""

    promised: Ballot
    wait_ms: int = 0


class Accept(Message, frozen=True):
    """Paxos phase 2: accept `batch` at `slot`. Reply: `AcceptedAt`, `Refused`, `Behind` or `Position`.

    The batch names the digest of the one before it, which is chosen: the acceptor may now apply that one. `Position` is
    the answer for a slot that is already applied (the proposer is behind). `lease`: the client wants the writer lease.
    """

    ballot: Ballot
    slot: int
    batch: bytes
    lease: bool = False


class AcceptedAt(Message, frozen=True):
    """The batch and everything in it are durable at this slot. `wanted`: another client waits for the lease.
    `recalled`: another client waits to see what was answered under it. `full`: only the reserve is left on the server's
    disk, which is for batches that delete."""

    slot: int
    wanted: bool = False
    recalled: bool = False
    full: bool = False


class Behind(Message, frozen=True):
    """The server has applied only up to this slot and must first learn the next ones."""

    applied: int


class Chosen(Message, frozen=True):
    """The batch with this digest is chosen at `slot`: apply it if you have accepted it. Reply: `Position`.

    `let_go`: the sending client's id, if it releases its writer lease.
    """

    slot: int
    digest: bytes
    let_go: bytes = b""


class Learn(Message, frozen=True):
    """Chosen batches from slot `first` on, for a server that missed them. Reply: `Position`. At most 10,000."""

    first: int
    batches: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_AT_ONCE)]


class GetPosition(Message, frozen=True):
    """Reply: `Position`. `recall`: the id of a client that must see everything that a writer has answered under its
    lease."""

    recall: bytes = b""


class Position(Message, frozen=True):
    """The position of the server's log. `tail_digest` is empty if nothing is accepted after `applied`.

    `lease`, given only to a client that recalls: the number of the lease that another client holds now, or 0. A server
    numbers its leases consecutively, so a different number says that the previous one has ended. `wants_copy`: the
    server's map is damaged, and is not read until a copy has replaced it.
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
    """The changes of a chosen batch, without the values."""

    slot: int
    digest: bytes
    author: bytes
    sequence: int
    keys: tuple[bytes, ...]


class GetChanges(Message, frozen=True):
    """The keys that changed after slot `after`, up to `slot` (whose batch has `digest`) or later.

    Reply: `Changes`, `Behind`; `Error` TRIMMED.
    """

    after: int
    slot: int
    digest: bytes


class Changes(Message, frozen=True):
    """The changes after the requested slot, in order, as many as fit; and the slot the server has applied."""

    changes: tuple[Change, ...]
    applied: int


# ------------------------------------------------------------------ the map


class ReadKeys(Message, frozen=True):
    """The values of `keys` at `slot` (whose batch has `digest`) or later. Reply: `Values` or `Behind`; `Error` TOO_MUCH
    (version 0.1.0: BAD_REQUEST) if they do not fit. At most 10,000 keys."""

    slot: int
    digest: bytes
    keys: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=MAX_AT_ONCE)]


class Values(Message, frozen=True):
    """A value or None for each requested key, all at slot `applied`."""

    applied: int
    values: tuple[bytes | None, ...]


class ReadRange(Message, frozen=True):
    """The items with start <= key < end, in order, at `slot` or later; at most `limit`. Reply: `Items` or `Behind`.

    `join`: a prefix. If it is not empty, the reply also has the items that those of the range name (`joins`); with
    `join_key`, only the one that the item of this key names. Servers of version 0.1.0 ignore both.
    """

    slot: int
    digest: bytes
    start: bytes
    end: bytes
    limit: int
    join: bytes = b""
    join_key: bytes = b""


class Items(Message, frozen=True):
    """Items of a range, all at slot `applied`. `more` says that the range continues after the last of them. `joined`:
    items that they name, at the same slot: perhaps not all, and none of those that do not exist."""

    applied: int
    items: tuple[tuple[bytes, bytes], ...]
    more: bool
    joined: tuple[tuple[bytes, bytes], ...] = ()


class BeginCopy(Message, frozen=True):
    """Start a copy of the map as of `slot`, replacing one that has made no progress for 5 s. Reply: `Done`; `Error`
    COPYING if another client's copy is still making progress.

    `copy` is a random id chosen by the sender: two clients that copy to one server at the same time must not mix their
    pages.
    """

    copy: bytes
    slot: int
    digest: bytes


class CopyItems(Message, frozen=True):
    """Further items of the current copy. Reply: `Done`; `Error` BAD_REQUEST if another copy has begun. At most
    10,000."""

    copy: bytes
    items: Annotated[tuple[tuple[bytes, bytes], ...], msgspec.Meta(max_length=MAX_AT_ONCE)]


class EndCopy(Message, frozen=True):
    """Replace the map with the copy. Reply: `Position`; `Error` BAD_REQUEST if the copy is incomplete, TRIMMED if the
    server needs it although it is of an earlier slot than its own, and no longer has the batches since then.

    `count` is its total number of items. They were read while the log went on, up to slot `read_until`: the server
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
