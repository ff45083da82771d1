"""Ballots: the total order in which proposers outrank each other (Lamport, "Paxos Made Simple", 2001)."""

from __future__ import annotations

import msgspec


class Ballot(msgspec.Struct, frozen=True, order=True, array_like=True):
    """(round, client): compared by round first, so two clients never hold equal ballots.

    `client` is the proposer's random 8-byte id; it is empty only in `ZERO`, with which no client proposes.
    """

    round: int
    client: bytes

    def above(self, client: bytes) -> Ballot:
        """The lowest ballot of `client` that outranks this one."""
        return Ballot(self.round + 1, client)

    def __str__(self) -> str:
        return f"{self.round}.{self.client.hex()[:8]}"


ZERO = Ballot(0, b"")
