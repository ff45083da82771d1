"""The map of a namespace in memory: a `MapStore` without log or servers, for tests of the layers above it.

One `MemoryMap` is the truth; several mounts may share it. Each piece of work is run twice, the first time on a
transaction that is discarded, since real stores may run it again: this exposes work with side effects.
`LaggingMap` is a mount's store that answers from an old state wherever the caller allows an age.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from dfs_server.protocol import batches
from dfs_server.protocol.batches import Batch, InlinePiece
from dfsfuse.errors import DfsError, ReadOnlyError
from dfsfuse.namespace.map.losses import Losses, Witness
from dfsfuse.namespace.map.transactions import Begun, Transaction, View

T = TypeVar("T")


class MemoryView:
    """A view of one state: a dictionary that is not changed."""

    def __init__(self, items: dict[bytes, bytes]) -> None:
        self._items = items

    def get(self, key: bytes) -> bytes | None:
        return self._items.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        ordered = sorted(self._items)
        return [(key, self._items[key]) for key in ordered[bisect_left(ordered, start) : bisect_left(ordered, end)]]


class MemoryTransaction(MemoryView):
    """A copy of a state, and the batch that leads to it."""

    def __init__(self, items: dict[bytes, bytes]) -> None:
        super().__init__(dict(items))
        self.puts: dict[bytes, bytes] = {}
        self.deletes: set[bytes] = set()
        self.drops: list[bytes] = []
        self.pieces: list[InlinePiece] = []

    def put(self, key: bytes, value: bytes) -> None:
        self._items[key] = self.puts[key] = value
        self.deletes.discard(key)

    def delete(self, key: bytes) -> None:
        self._items.pop(key, None)
        self.puts.pop(key, None)
        self.deletes.add(key)

    def drop(self, segment: bytes) -> None:
        self.drops.append(segment)

    def carry(self, pieces: Iterable[InlinePiece]) -> None:
        self.pieces.extend(pieces)

    def items(self) -> dict[bytes, bytes]:
        return self._items

    def batch(self) -> Batch:
        return Batch(
            format=batches.FORMAT,
            previous=b"",
            author=b"memory",
            sequence=0,
            time_ns=0,
            puts=tuple(self.puts.items()),
            deletes=tuple(self.deletes),
            drops=tuple(self.drops),
            pieces=tuple(self.pieces),
        )

    def is_empty(self) -> bool:
        return not (self.puts or self.deletes or self.drops or self.pieces)


def _answered(result: T, answered: Callable[[T], None] | None) -> T:
    if answered is not None:
        answered(result)
    return result


class MemoryMap:
    """A `MapStore`. Thread-safe: the lock guards everything, and work runs under it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.items: dict[bytes, bytes] = {}
        self.batches: list[Batch] = []
        """All committed batches, in order."""
        self.losses: Losses[DfsError] = Losses()
        """Losses of answered changes that a test has added."""
        self.made: set[int] = set()
        """Numbers of batches in doubt that were made after all."""
        self.is_writable = True
        self.remembers = True
        """Whether `recall` finds what was known last."""
        self.are_servers_slow = False
        self.has_answered = False
        """Whether to claim that something was answered but is not durable yet."""
        self.ends_within_s: float | None = None
        """The last argument of `end_within`."""
        self.are_followed: list[bool] = []
        """For each transaction, whether its caller was about to make it durable."""
        self.before_commit: Callable[[Batch], None] = lambda _: None
        """Called with each batch before it is committed; may raise."""

    def read(
        self,
        work: Callable[[View], T],
        *,
        max_age_s: float = 0.0,
        doubted: type[OSError] | None = None,
        answered: Callable[[T], None] | None = None,
    ) -> T:
        with self._lock:
            items = self.items
        return _answered(work(MemoryView(items)), answered)

    def transact(self, work: Callable[[Transaction], T], *, durable: bool = True, is_followed: bool = False) -> T:
        with self._lock:
            self.are_followed.append(is_followed)
            work(MemoryTransaction(self.items))
            transaction = MemoryTransaction(self.items)
            result = work(transaction)
            if transaction.is_empty():
                return result
            if not self.is_writable:
                raise ReadOnlyError("two of four servers do not answer")
            batch = transaction.batch()
            batches.decode(batches.encode(batch))
            self.before_commit(batch)
            self.batches.append(batch)
            self.items = transaction.items()
            return result

    def begin(self, work: Callable[[Transaction], T]) -> Begun[T]:
        return Begun(self.transact(work), lambda: None)

    def witness(self) -> Witness:
        return self.losses.witness()

    def flush(self, witness: Witness | None = None) -> None:
        failure = self.losses.take(witness)
        if failure is not None:
            raise failure

    def was_made(self, sequence: int) -> bool:
        return sequence in self.made

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        return [self.items.get(key) for key in keys] if self.remembers else None

    def writable(self) -> bool:
        return self.is_writable

    def is_stalled(self) -> bool:
        return self.are_servers_slow

    def owes(self) -> bool:
        return self.has_answered

    def end_within(self, patience_s: float) -> None:
        self.ends_within_s = patience_s

    def close(self) -> None:
        pass

    @property
    def drops(self) -> list[bytes]:
        """Return all segments ever dropped."""
        return [segment for batch in self.batches for segment in batch.drops]

    @property
    def pieces(self) -> list[InlinePiece]:
        """Return all pieces ever carried in batches."""
        return [piece for batch in self.batches for piece in batch.pieces]


class LaggingMap:
    """A mount's store over a shared `MemoryMap`. If the caller allows an age, it answers from the last state
    that it had to see: one that was read without an allowed age, or that it made itself."""

    def __init__(self, truth: MemoryMap) -> None:
        self.truth = truth
        self._seen = truth.items

    def read(
        self,
        work: Callable[[View], T],
        *,
        max_age_s: float = 0.0,
        doubted: type[OSError] | None = None,
        answered: Callable[[T], None] | None = None,
    ) -> T:
        if max_age_s:
            try:
                return _answered(work(MemoryView(self._seen)), answered)
            except OSError as error:
                if doubted is None or not isinstance(error, doubted):
                    raise
        self._seen = self.truth.items
        return _answered(work(MemoryView(self._seen)), answered)

    def transact(self, work: Callable[[Transaction], T], *, durable: bool = True, is_followed: bool = False) -> T:
        result = self.truth.transact(work)
        self._seen = self.truth.items
        return result

    def begin(self, work: Callable[[Transaction], T]) -> Begun[T]:
        return Begun(self.transact(work), lambda: None)

    def witness(self) -> Witness:
        return self.truth.witness()

    def flush(self, witness: Witness | None = None) -> None:
        self.truth.flush(witness)

    def was_made(self, sequence: int) -> bool:
        return self.truth.was_made(sequence)

    def recall(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        return self.truth.recall(keys)

    def writable(self) -> bool:
        return self.truth.writable()

    def is_stalled(self) -> bool:
        return self.truth.is_stalled()

    def owes(self) -> bool:
        return self.truth.owes()

    def end_within(self, patience_s: float) -> None:
        self.truth.end_within(patience_s)

    def close(self) -> None:
        pass
