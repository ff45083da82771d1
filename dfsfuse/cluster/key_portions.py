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


def read_in_portions(
    read: Callable[[tuple[bytes, ...]], R], keys: Sequence[bytes], at_once: int
) -> Iterator[tuple[tuple[bytes, ...], R]]:
    """The keys in portions of `at_once` or fewer, each with what `read` says of it. The next one is read when it is
    asked for: the caller takes in each portion before others can change what is in it."""
    first = 0
    while first < len(keys):
        portion = tuple(keys[first : first + at_once])
        try:
            found = read(portion)
        except TooMuchAtOnceError:
            if len(portion) == 1:
                raise
            at_once = len(portion) // 2
            continue
        yield portion, found
        first += len(portion)
