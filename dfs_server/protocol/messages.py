"""The requests and the replies. Each request has one reply of the type named in its docstring, or an `Error`.

Messages are MessagePack arrays whose first element is the tag. Raw bytes of pieces travel as a frame's payload, never
in a body. Where a message speaks of a server's log, `slot` counts from 1 and 0 means "nothing yet".
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.frames import ProtocolError

MAX_HAVE_PIECES: Final = 10_000
MAX_AT_ONCE: Final = 10_000
"""The most keys, items or batches in a request. However small they are, each takes memory and time of its own."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What all messages have in common: immutable, and tagged with the name of its class."""


# ------------------------------------------------------------------ authentication (RFC 5802, RFC 7677)


class Authenticate(Message, frozen=True):
    """SCRAM-SHA-256, the client's first message. Reply: `Challenge`."""

    version: int
    user: str
    scram: str


class Challenge(Message, frozen=True):
    """SCRAM-SHA-256, the server's first message."""

    scram: str


class Prove(Message, frozen=True):
    """SCRAM-SHA-256, the client's final message. Reply: `Welcome`."""

    scram: str


class Welcome(Message, frozen=True):
    """SCRAM-SHA-256, the server's final message, and who the server is.

    `server` is its name (DFS1..DFS4), `identity` a random id made with its folder: a server that comes back
    with an empty folder has another one.
    """

    scram: str
    server: str
    identity: bytes


# ------------------------------------------------------------------ the server itself


class GetStatus(Message, frozen=True):
    """Reply: `ServerStatus`."""


class ServerStatus(Message, frozen=True):
    """How the server is, as seen from the asking user's namespace."""

    server: str
    version: str
    applied: int
    free_bytes: int
    total_bytes: int
    piece_count: int
    piece_bytes: int


# ------------------------------------------------------------------ the piece store


class PutPiece(Message, frozen=True):
    """Store a piece durably; the payload is the piece, `digests` its level-one digests. Reply: `Done`.

    Putting a piece that is there already is no error: pieces are immutable.
    """

    segment: bytes
    number: int
    digests: bytes


class GetPiece(Message, frozen=True):
    """Read `block_count` blocks of a piece from `first_block` on; 0 blocks means all the rest. Reply: `Piece`."""

    segment: bytes
    number: int
    first_block: int = 0
    block_count: int = 0


class Piece(Message, frozen=True):
    """The payload is the blocks asked for; `digests` are the level-one digests of the whole piece."""

    length: int
    digests: bytes


class HavePieces(Message, frozen=True):
    """Which of these (segment, number) are here? Reply: `Have`. At most 10,000 at a time."""

    pieces: Annotated[tuple[tuple[bytes, int], ...], msgspec.Meta(max_length=MAX_HAVE_PIECES)]


class Have(Message, frozen=True):
    """One byte for each piece asked for: 1 if the server has it, else 0. Nothing was read to tell."""

    flags: bytes


class Done(Message, frozen=True):
    """It is done, durably."""


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
    another client waits to see what was answered under it."""

    slot: int
    wanted: bool = False
    recalled: bool = False


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
    are numbered on, so another number says that the one before has ended.
    """

    applied: int
    digest: bytes
    promised: Ballot
    tail_digest: bytes = b""
    lease: int = 0


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
    """Forget any copy under way and start a new one, of the map as of `slot`. Reply: `Done`.

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
    """Put the copy in the place of the map. Reply: `Position`; `Error` BAD_REQUEST if it is not whole.

    `count` is how many items it has in all. They were read while the log went on, up to slot `read_until`: the server
    answers no reads before it has applied that slot, since until then the map is a mixture.
    """

    copy: bytes
    count: int
    read_until: int


class Error(Message, frozen=True):
    """The request failed: a `Status` and a sentence for people."""

    status: int
    text: str


AuthenticationRequest = Authenticate | Prove
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
Request = AuthenticationRequest | GetStatus | PutPiece | GetPiece | HavePieces | LogRequest
Reply = (
    Challenge
    | Welcome
    | ServerStatus
    | Piece
    | Have
    | Done
    | Promised
    | Refused
    | AcceptedAt
    | Behind
    | Position
    | Batches
    | Changes
    | Values
    | Items
    | Error
)

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)

T = TypeVar("T")


def encode(message: Message) -> bytes:
    """A message as the body of a frame."""
    return _encoder.encode(message)


def decode_request(body: bytes | bytearray | memoryview) -> Request:
    """The request in a frame's body. Raises `ProtocolError` for anything else."""
    return _decode(_requests, body, "request")


def decode_reply(body: bytes | bytearray | memoryview) -> Reply:
    """The reply in a frame's body. Raises `ProtocolError` for anything else."""
    return _decode(_replies, body, "reply")


def _decode(decoder: msgspec.msgpack.Decoder[T], body: bytes | bytearray | memoryview, what: str) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a {what} of this protocol: {error}") from error
