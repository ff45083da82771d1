"""For tests of a server's sessions: a segment and its data, and the server's answer to a client that misbehaves."""

from __future__ import annotations

import random

import pytest
from support.daemons import House
from support.raw_client import RawClient, ServerError

from dfs_server.protocol.messages import Error, GetPosition, Message, Position
from dfs_server.protocol.pieces import BLOCK_BYTES
from dfs_server.protocol.status import Status

SEGMENT = bytes.fromhex("3f" + "a1" * 15)
DATA = random.Random(1).randbytes(3 * BLOCK_BYTES + 77)


def status_of(client: RawClient, request: Message, payload: bytes = b"") -> Status:
    with pytest.raises(ServerError) as caught:
        client.ask(request, payload)
    return caught.value.status


def still_serves(house: House) -> None:
    assert isinstance(house.client().ask(GetPosition()), Position)


def refused(client: RawClient) -> Status:
    """Return the status of the next reply, which must be an error after which the server hangs up."""
    _, reply, _ = client.receive()
    assert isinstance(reply, Error), reply
    assert client.is_closed_by_server()
    return Status(reply.status)
