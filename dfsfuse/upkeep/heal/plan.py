"""What healing does with one segment: which copies are missing, where to get them, what the record says afterwards.
Pure.

Each piece belongs on its two *desired* homes, those of the ring. If a home of the ring answers and has no copy, it gets
one from any server with a good one (`missing`). If it does not answer, the record is left alone, and stand-ins of the
handoff keep their copies, and get one again if they have lost it. After copies were made, `settled` says which homes
the record may name: those known to have the piece, and those already named.

Rules that keep this harmless no matter who else heals at the same time:
- A server that answers and has a good copy is never written to.
- A home is only named if it has the piece, or was named before.
- A copy is dropped only if both homes of the ring have one and the record names just these. A home of the ring that has
  once been named is named forever, whatever becomes of its copy: so no client comes to rely on what is dropped.
- Homes that stay are preferred as sources over stand-ins: so what is relied on is what is read and checked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from dfs_server.protocol.limits import COPIES
from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.data.placement import Homes

Holders = Mapping[int, Collection[int]]
"""Piece number -> ids of the servers that answer and have a copy not known to be bad."""


class Transfer(NamedTuple):
    """A copy of piece `number` to be made on `target`, from the first of `sources` that has a good one."""

    number: int
    target: int
    sources: tuple[int, ...]


class Settled(NamedTuple):
    """What the record should say, and which copies (number, server) are superfluous once it does."""

    homes: Homes
    drops: tuple[tuple[int, int], ...]


def missing(recorded: Homes, desired: Homes, holders: Holders, answering: Collection[int]) -> tuple[Transfer, ...]:
    """Return the copies to be made. Sources may be empty: then no answering server has the piece."""
    found = []
    for number in PIECE_NUMBERS:
        old, ring, have = recorded[number - 1], desired[number - 1], holders[number]
        targets = [home for home in ring if home in answering]
        targets += _stand_ins(old, ring, answering, have)[
            : sum(home not in answering and home not in old for home in ring)
        ]
        sources = tuple(sorted(have, key=lambda server, ring=ring: (server not in ring, server)))  # type: ignore[misc]
        found += [Transfer(number, target, sources) for target in targets if target not in have]
    return tuple(found)


def settled(recorded: Homes, desired: Homes, holders: Holders) -> Settled:
    """Return what may be recorded now that these servers have the pieces."""
    homes = []
    drops: list[tuple[int, int]] = []
    for number in PIECE_NUMBERS:
        old, ring, have = recorded[number - 1], desired[number - 1], holders[number]
        chosen = [home for home in ring if home in have or home in old]
        others = [*(home for home in old if home in have), *sorted(have), *old]
        chosen += [home for home in dict.fromkeys(others) if home not in chosen][: COPIES - len(chosen)]
        homes.append(old if set(chosen) == set(old) else tuple(chosen))
        if all(home in have for home in ring):
            drops += [(number, server) for server in sorted(have) if server not in ring]
    one, two, three, four = homes
    return Settled((one, two, three, four), tuple(drops))


def copies(holders: Holders) -> int:
    """Return the number of copies of the piece that has the fewest: 2 is what is promised."""
    return min(len(holders[number]) for number in PIECE_NUMBERS)


def _stand_ins(
    old: Collection[int], ring: Collection[int], answering: Collection[int], have: Collection[int]
) -> list[int]:
    """Return the handoff homes that answer, those that have the piece first."""
    return sorted((home for home in old if home in answering and home not in ring), key=lambda home: home not in have)
