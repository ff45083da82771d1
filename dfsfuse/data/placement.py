"""Which server holds which piece. Pure, and the mission's own rule (DESIGN section 1).

The pairs (P1,P2) (P2,P3) (P3,P4) (P4,P1) are placed on the ring of the four servers, shifted by the rotation x =
MD5(content) mod 4. `ring` is that table and nothing else. `place` is for writers: the ring where its servers are
usable, and other servers (handoff) for the copies whose home is not. `choose_sources` is for readers.

Servers are ids 1..4: positions in the client's config. Homes are ids rather than positions on the ring, so that one day
they may be any four of many servers. Order within a piece's homes: first the server whose pair begins with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import lru_cache
from itertools import product

from dfs_server.protocol.limits import COPIES, SERVERS
from dfs_server.protocol.pieces import PIECE_NUMBERS, Buffer

Homes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class NotEnoughServersError(ValueError):
    """There are fewer usable servers than copies of a piece."""


def rotation_of(data: Buffer) -> int:
    """Return x = MD5(data) mod 4, the digest read as one big-endian number. MD5 only places; it never verifies
    anything."""
    return int.from_bytes(hashlib.md5(data, usedforsecurity=False).digest(), "big") % SERVERS


def rotation_of_region(first: int, region: int) -> int:
    """Return the rotation of a file's segment in region number `region`; `first` is that of its first segment."""
    return (first + region) % SERVERS


def pairs(x: int) -> dict[int, tuple[int, int]]:
    """Return the mission's table: the pair of pieces of each server, for rotation x."""
    table = {}
    for server in range(1, SERVERS + 1):
        first = (server - 1 - x) % SERVERS
        table[server] = (first + 1, (first + 1) % SERVERS + 1)
    return table


def ring(x: int) -> Homes:
    """Return the same table by piece: the two homes of P1..P4 for rotation x."""
    one, two, three, four = ((_turn(number - 1 + x), _turn(number - 2 + x)) for number in PIECE_NUMBERS)
    return one, two, three, four


def _turn(position: int) -> int:
    return position % SERVERS + 1


def place(x: int, usable: Collection[int]) -> Homes:
    """Return two different usable homes for each piece: the ring's where they are usable, handoff for the others.

    A copy that cannot go to its home goes to the usable server with the fewest copies that does not have the piece.
    Ties are broken by the rotation, so that the segments of a long file burden the servers evenly. Raises
    `NotEnoughServersError` for fewer than two usable servers; whether two are enough to write is the caller's business.
    """
    return _placed(x, frozenset(usable))


@lru_cache(maxsize=1024)
def _placed(x: int, usable: frozenset[int]) -> Homes:
    if len(usable) < COPIES:
        raise NotEnoughServersError(f"{COPIES} copies of a piece need {COPIES} servers; usable: {sorted(usable)}")
    homes = [[server for server in wanted if server in usable] for wanted in ring(x)]
    load = dict.fromkeys(usable, 0)
    for chosen in homes:
        for server in chosen:
            load[server] += 1
    for chosen in homes:
        while len(chosen) < COPIES:
            others = (server for server in load if server not in chosen)
            server = min(others, key=lambda other: (load[other], (other - x) % SERVERS))
            chosen.append(server)
            load[server] += 1
    one, two, three, four = map(tuple, homes)
    return one, two, three, four


@lru_cache(maxsize=1024)
def choose_sources(homes: Homes, usable: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """Return, for each piece, its homes in the order to ask them: usable ones first, and as few pieces as possible
    first asked of the same server, so that all four send one quarter each when all are up.

    The result is shared between callers: do not change it.
    """
    choices = [[server for server in home if server in usable] or list(home[:1]) for home in homes]
    best = min(product(*choices), key=_crowding)
    order = {}
    for number, home, first in zip(PIECE_NUMBERS, homes, best, strict=True):
        rest = [server for server in home if server != first]
        order[number] = (first, *sorted(rest, key=lambda server: server not in usable))
    return order


def _crowding(first_asked: tuple[int, ...]) -> int:
    """Return the sum of the squared loads, which is least if the pieces are spread evenly."""
    return sum(first_asked.count(server) for server in first_asked)
