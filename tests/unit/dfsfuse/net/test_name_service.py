"""Host names are resolved to addresses."""

from __future__ import annotations

import socket

import pytest

from dfsfuse.net.name_service import Target, look_up, look_up_number
from dfsfuse.net.servers import ServerAddress


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1", (Target(socket.AF_INET, ("127.0.0.1", 10001)),)),
        ("::1", (Target(socket.AF_INET6, ("::1", 10001, 0, 0)),)),
        ("nas.example", ()),
    ],
)
def test_numbers_need_no_name_service(host: str, found: tuple[Target, ...]) -> None:
    assert look_up_number(ServerAddress(1, "DFS1", host, 10001)) == found


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_what_can_be_no_name_is_not_found(host: str) -> None:
    server = ServerAddress(1, "DFS1", host, 10001)
    assert look_up_number(server) == ()
    with pytest.raises(OSError, match="no host can have such a name"):
        look_up(server)


def test_name_has_addresses() -> None:
    targets = look_up(ServerAddress(1, "DFS1", "localhost", 10001))
    assert {target.address[0] for target in targets} <= {"127.0.0.1", "::1"}
    assert targets
