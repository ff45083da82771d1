"""Transactions over a namespace's key-value map: the interface that file system operations are written against. Pure.

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
    """One readable state of the map."""

    def get(self, key: bytes) -> bytes | None:
        """Return the key's value, or None."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return a value or None for each key, in as few round trips as possible."""
        ...

    def scan(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """Return all items with start <= key < end, in order."""
        ...


class Transaction(View, Protocol):
    """A state of the map with changes on top; reads see the changes."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set the key."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove the key; no error if it is not there."""
        ...

    def drop(self, segment: bytes) -> None:
        """Declare that the segment is no longer referred to: its pieces may be deleted after the grace period."""
        ...

    def carry(self, pieces: Iterable[InlinePiece]) -> None:
        """Attach pieces of small segments, which become durable with the change."""
        ...


@dataclass(frozen=True)
class Begun(Generic[R_co]):
    """A transaction whose changes are visible to everyone here, and may not be durable yet."""

    result: R_co
    wait: Callable[[], None]
    """Returns when the changes are durable, or raises what prevented that. To be called once, by the same caller."""


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
        order of the calls, if this client alone writes; in this mount they are visible at once. `is_followed`: the
        caller will soon make something durable, and these changes with it, so they may follow some milliseconds later.
        """
        ...

    def begin(self, work: Callable[[Transaction], T]) -> Begun[T]:
        """The same as `transact` with `durable`, but durability is awaited later: several that are begun one after the
        other become durable together, in as few batches as they fit into. Each gets its own failure."""
        ...

    def witness(self) -> Witness:
        """Return a witness, to which `flush` reports every change that is answered and lost from now on; and one that
        was lost before, if it was not reported yet."""
        ...

    def flush(self, witness: Witness | None = None) -> None:
        """Return when all changes so far are durable. Raises what prevented that for one of them: once for each
        witness; without a witness, only if it was not reported yet."""
        ...

    def was_made(self, sequence: int) -> bool:
        """Return whether a batch reported by a MaybeDoneError is known to be made by now. To be called within a
        transaction: what that commits comes after the batch, or the batch will never be made. Also False if it can no
        longer be known.
        """
        ...

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """Return the last known durable values of these keys; None if one of them is unknown. They may be old. Sends no
        requests."""
        ...

    def writable(self) -> bool:
        """Return whether enough servers are believed to answer for a transaction to succeed. Sends no requests."""
        ...

    def is_stalled(self) -> bool:
        """Return whether so many servers owe an answer that they are waited for longer than usual. Never waits."""
        ...

    def owes(self) -> bool:
        """Return whether something was answered that is not durable yet. Never waits."""
        ...

    def end_within(self, patience_s: float) -> None:
        """Prepare for the end: servers that return are waited for this long from now and no longer, and those that are
        only slow are given up like those that hang. What was answered is kept until then. Never waits."""
        ...

    def close(self) -> None:
        """Close. What `transact` has returned from is already durable."""
        ...
