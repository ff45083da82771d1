"""Addresses and credentials."""

from __future__ import annotations

from dfsfuse.net.servers import Credentials, ServerAddress


def test_server_is_shown_by_name_and_address() -> None:
    assert str(ServerAddress(3, "DFS3", "127.0.0.1", 10003)) == "DFS3 (127.0.0.1:10003)"
    assert str(ServerAddress(3, "DFS3", "::1", 10003)) == "DFS3 ([::1]:10003)"


def test_password_is_never_shown() -> None:
    credentials = Credentials("alice", "alice-secret")
    assert "alice-secret" not in f"{credentials!r} {credentials} {[credentials]}"
