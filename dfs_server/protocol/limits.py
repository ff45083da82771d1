"""Numbers on which safety rests, so that client and server must have the same ones. Pure."""

from __future__ import annotations

from typing import Final

SERVERS: Final = 4
QUORUM: Final = 3
"""Any two quorums share two servers, so one of the four may lose its memory."""
COPIES: Final = 2
"""On how many servers each piece is."""
LEASE_S: Final = 2.0
"""How long other clients are refused after a writer's last accept. The writer counts on three quarters of it only."""
