"""Reads the map page by page, bypassing a mount's own cache: for code that goes through all of it.

A mount's `LogMap` keeps what it reads and holds its log's lock meanwhile; a pass over a whole namespace must do
neither. `MapReader` has its own view of the log. `begin` finds the end of the log, linearizably; what is read from then
on is as of that slot or a later one, page by page: pages of one pass may be as of different slots.

One thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

from dfs_server.protocol.messages import Items, Values
from dfsfuse.errors import UnavailableError
from dfsfuse.log.key_portions import TooMuchAtOnceError, read_in_portions
from dfsfuse.log.quorum_log import QuorumLog

T = TypeVar("T")

PAGE_ITEMS: Final = 1000
READ_KEYS: Final = 1000
TRIES: Final = 5
"""How often a page is asked for: a server may have advanced so far meanwhile that it no longer knows what changed."""


class Pages(Protocol):
    """What a pass over the map needs of it."""

    def begin(self) -> bool:
        """Find the end of the log. Returns False if less than a quorum answers, and what is read may be a little old.

        Raises UnavailableError if no server answers.
        """
        ...

    def pages(self, start: bytes, end: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield all items with start <= key < end, in order, in pages. Raises UnavailableError."""
        ...

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return a value or None for each key. Raises UnavailableError."""
        ...


class MapReader:
    """See the module. Implements `Pages`."""

    def __init__(self, log: QuorumLog, *, recall: bool = True) -> None:
        """`log` is for this reader alone. `recall`: also see what a mount has answered under its lease and not
        committed yet, which interrupts that mount for a moment."""
        self._log = log
        self._recall = recall

    def begin(self) -> bool:
        """See `Pages.begin`."""
        try:
            return self._log.catch_up(recall=self._recall)
        finally:
            self._log.take_news()

    def pages(self, start: bytes, end: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        """See `Pages.pages`."""
        while True:
            page: Items = self._patiently(lambda at=start: self._log.read_range(at, end, PAGE_ITEMS))  # type: ignore[misc]
            if page.items:
                yield list(page.items)
            if not page.more:
                return
            start = page.items[-1][0] + b"\0"

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Pages.values`."""

        def read(part: tuple[bytes, ...]) -> Values:
            return self._patiently(lambda: self._log.read_keys(part))

        return [value for _, reply in read_in_portions(read, keys, READ_KEYS) for value in reply.values]

    def _patiently(self, read: Callable[[], T]) -> T:
        for _ in range(TRIES - 1):
            try:
                return self._read(read)
            except TooMuchAtOnceError:
                raise
            except UnavailableError:
                self.begin()
        return self._read(read)

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        finally:
            self._log.take_news()  # nobody here needs them, and they would be kept forever
