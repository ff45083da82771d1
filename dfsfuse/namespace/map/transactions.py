"""Transactions over a namespace's key-value map: what the operations of a file system are written against.
Pure.

An operation is a function of a `View` or a `Transaction`. It may be run several times, each time on one consistent
state, and must have no effect but on the transaction. It may raise OSError: then nothing is committed.

`dfsfuse.namespace.map.client.MapClient` runs transactions over the quorum log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from dfs_server.protocol.batches import InlinePiece
from dfsfuse.namespace.map.losses import Witness

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class View(Protocol):
    """One state of the map, to be read."""

    def get(self, key: bytes) -> bytes | None:
        """The key's value, or None."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """A value or None for each key; in as few round trips as it takes."""
        ...

    def scan(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """All items with start <= key < end, in order."""
        ...


class Transaction(View, Protocol):
    """A state of the map and changes on it; reads see the changes."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set the key."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove the key; no error if it is not there."""
        ...

    def drop(self, segment: bytes) -> None:
        """Nobody refers to this segment any more: its pieces may be deleted after the grace period."""
        ...

    def carry(self, pieces: Iterable[InlinePiece]) -> None:
        """Pieces of small segments that become durable with the change."""
        ...


@dataclass(frozen=True)
class Begun(Generic[R_co]):
    """A transaction whose changes are made for everybody who looks here, and may not be durable yet."""

    result: R_co
    wait: Callable[[], None]
    """Return when the changes are durable. Raises what kept them from it; to be called by whoever began it, once."""


class MapStore(Protocol):
    """Where transactions run. Thread-safe."""

    def read(
        self,
        work: Callable[[View], T],
        *,
        max_age_s: float = 0.0,
        doubted: type[OSError] | None = None,
        answered: Callable[[T], None] | None = None,
    ) -> T:
        """Run `work` on one state, at most `max_age_s` old; 0.0 means linearizable. Raises UnavailableError.

        `doubted`: an error that counts only if `work` raises it on the newest state; on an older one, it is run again.
        `answered` is called once with what is returned, before anything else is decided here on this state or a newer
        one. It must not wait; it may change the result, and raise as `work` does.
        """
        ...

    def transact(self, work: Callable[[Transaction], T], *, durable: bool = True, is_followed: bool = False) -> T:
        """Run `work` and make its changes at once. Raises ReadOnlyError, MaybeDoneError, UnavailableError.

        `durable`: they are on the servers' disks when this returns. Else they may follow within milliseconds, in the
        order of the calls, if this client alone writes; for everybody who looks here they are made. `is_followed`: the
        caller will soon make something durable, and these changes with it, so they may follow some milliseconds later.
        """
        ...

    def begin(self, work: Callable[[Transaction], T]) -> Begun[T]:
        """The same as `transact` with `durable`, but the durability is waited for later: several that are begun one
        after the other become durable together, in as few batches as they fit into. Each is told its own failure."""
        ...

    def witness(self) -> Witness:
        """For one who will want to know, by `flush`, of every change that is answered and lost from now on; and of one
        that was lost before, if nobody has been told."""
        ...

    def flush(self, witness: Witness | None = None) -> None:
        """Return when all changes so far are durable. Raises what kept one of them from it: once for each witness;
        without one, if nobody has been told yet."""
        ...

    def was_made(self, sequence: int) -> bool:
        """Whether a batch of which a MaybeDoneError told is known to be made by now. To be asked within a transaction:
        what that commits comes after the batch, or the batch will never be made. False also if it can be told no more.
        """
        ...

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """The values that these keys are known to have had last, without what is not durable yet; None if one of them
        is not known. They may be old. Asks nobody."""
        ...

    def writable(self) -> bool:
        """Whether enough servers are believed to answer for a transaction to succeed. Asks nobody."""
        ...

    def is_stalled(self) -> bool:
        """Whether so many servers owe an answer that they are waited for longer than usual. Never waits."""
        ...

    def owes(self) -> bool:
        """Whether something was answered that is not durable yet. Never waits."""
        ...

    def end_within(self, patience_s: float) -> None:
        """The end is near: servers that return are waited for so long from now and no longer, and those that are only
        slow are given up like those that hang. What was answered is kept until then. Never waits."""
        ...

    def close(self) -> None:
        """End. What `transact` has returned from is durable already."""
        ...
