"""Keys requested by name, in portions as large as the servers' replies have room for. Pure.

Only the servers know how large the values of some keys are, and one that finds them too large refuses all of them: with
`TOO_MUCH`, or, if it is older, with `BAD_REQUEST`. Then half as many are requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from dfs_server.protocol.status import Status
from dfsfuse.errors import UnavailableError

R = TypeVar("R")


class TooMuchAtOnceError(UnavailableError):
    """No server has room in a reply for the values of all these keys. There are at least two."""


def may_lack_room(status: int | None, keys: Sequence[bytes]) -> bool:
    """Return whether a server that answers a request for these keys with this status may lack room for their values. A
    single value always has room."""
    return len(keys) > 1 and status in (Status.TOO_MUCH, Status.BAD_REQUEST)


class Portions:
    """Keys, one portion at a time. The caller reports for each whether it was taken or was too much."""

    def __init__(self, keys: Sequence[bytes], at_once: int) -> None:
        self._keys = keys
        self._at_once = at_once
        self._first = 0

    def next(self) -> tuple[bytes, ...]:
        """Return the keys to ask for now; none when all are taken."""
        return tuple(self._keys[self._first : self._first + self._at_once])

    def taken(self, portion: Sequence[bytes]) -> None:
        """Record that this portion was answered."""
        self._first += len(portion)

    def too_much(self, portion: Sequence[bytes]) -> bool:
        """Record that no server has room for this portion. Returns False if there is no smaller one."""
        self._at_once = len(portion) // 2
        return len(portion) > 1


def read_in_portions(
    read: Callable[[tuple[bytes, ...]], R], keys: Sequence[bytes], at_once: int
) -> Iterator[tuple[tuple[bytes, ...], R]]:
    """Yield the keys in portions of at most `at_once`, each with what `read` returns for it. The next one is read only
    on demand: the caller processes each portion before others can change what is in it."""
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
