"""What healing does with one segment: which copies are missing, from where they come, what the record says then. Pure.

Each piece belongs on its two *desired* homes, those of the ring. Where a home of the ring has no copy and answers, it
gets one from whoever has a good one (`missing`). Where it does not answer, what the record says is left alone, and
stand-ins of the handoff keep their copies, and get one if they have lost it. When copies were made, `settled` says
which homes the record may name: those that are known to have the piece, or were named already.

Rules that keep this harmless, whoever else heals at the same time:
- A server that answers and has a good copy is never written to.
- A home is only named if it has the piece, or was named before.
- A copy is dropped only where both homes of the ring have one and the record names just these. A home of the ring that
  is named once is named for ever, whatever becomes of its copy: so nobody comes to rely on what is dropped.
- Sources are the homes that stay, before stand-ins: so what is relied on is what is read and checked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from dfs_server.protocol.limits import COPIES
from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.data.placement import Homes

Holders = Mapping[int, Collection[int]]
"""Piece number -> ids of the servers that answer and have a copy that is not known to be bad."""


class Transfer(NamedTuple):
    """A copy to be made of piece `number` on `target`, from the first of `sources` that has a good one."""

    number: int
    target: int
    sources: tuple[int, ...]


class Settled(NamedTuple):
    """What the record is to say, and which copies (number, server) are superfluous once it does."""

    homes: Homes
    drops: tuple[tuple[int, int], ...]


def missing(recorded: Homes, desired: Homes, holders: Holders, answering: Collection[int]) -> tuple[Transfer, ...]:
    """The copies to be made. Sources may be empty: then nobody who answers has the piece."""
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
    """What may be recorded now that these servers have the pieces."""
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
    """How many copies there are of the piece that has the fewest: 2 is what is promised."""
    return min(len(holders[number]) for number in PIECE_NUMBERS)


def _stand_ins(
    old: Collection[int], ring: Collection[int], answering: Collection[int], have: Collection[int]
) -> list[int]:
    """Homes of the handoff that answer, those that have the piece first."""
    return sorted((home for home in old if home in answering and home not in ring), key=lambda home: home not in have)
