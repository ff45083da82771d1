"""Keys that are asked for by name, in portions as large as the servers' replies have room for. Pure.

How much the values of some keys are is known to the servers alone, and one that finds them too much refuses all of
them: with `TOO_MUCH`, or, if it is older, with `BAD_REQUEST`. Then half as many are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dfs_server.protocol.status import Status
from dfsfuse.errors import UnavailableError

R = TypeVar("R")


class TooMuchAtOnceError(UnavailableError):
    """No server has room in a reply for the values of all these keys. There are at least two."""


def is_told_by(status: int | None, keys: Sequence[bytes]) -> bool:
    """Does a server that answers a request for these keys with this status have no room for their values, perhaps? One
    value always has room."""
    return len(keys) > 1 and status in (Status.TOO_MUCH, Status.BAD_REQUEST)


class Portions:
    """Keys, a portion at a time. The caller says of each whether it was taken or was too much."""

    def __init__(self, keys: Sequence[bytes], at_once: int) -> None:
        self._keys = keys
        self._at_once = at_once
        self._first = 0

    def next(self) -> tuple[bytes, ...]:
        """The keys to ask for now; none when all are taken."""
        return tuple(self._keys[self._first : self._first + self._at_once])

    def taken(self, portion: Sequence[bytes]) -> None:
        """This portion was answered."""
        self._first += len(portion)

    def too_much(self, portion: Sequence[bytes]) -> bool:
        """No server has room for this portion. False if a smaller one cannot be had."""
        self._at_once = len(portion) // 2
        return len(portion) > 1


def read_in_portions(
    read: Callable[[tuple[bytes, ...]], R], keys: Sequence[bytes], at_once: int
) -> Iterator[tuple[tuple[bytes, ...], R]]:
    """The keys in portions of `at_once` or fewer, each with what `read` says of it. The next one is read when it is
    asked for: the caller takes in each portion before others can change what is in it."""
    portions = Portions(keys, at_once)
    while portion := portions.next():
        try:
            found = read(portion)
        except TooMuchAtOnceError:
            if not portions.too_much(portion):
                raise
            continue
        yield portion, found
        portions.taken(portion)
