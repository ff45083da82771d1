"""Addresses and credentials."""

from __future__ import annotations

import socket

import pytest

from dfsfuse.net.servers import Credentials, ServerAddress, Target, look_up, look_up_number


def test_server_is_shown_by_name_and_address() -> None:
    assert str(ServerAddress(3, "DFS3", "127.0.0.1", 10003)) == "DFS3 (127.0.0.1:10003)"
    assert str(ServerAddress(3, "DFS3", "::1", 10003)) == "DFS3 ([::1]:10003)"


def test_password_is_never_shown() -> None:
    credentials = Credentials("alice", "alice-secret")
    assert "alice-secret" not in f"{credentials!r} {credentials} {[credentials]}"


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
