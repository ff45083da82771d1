"""Authentication: nothing is answered before the password is proven, and which users exist is not revealed; and the
message if the user's namespace cannot be opened then."""

from __future__ import annotations

from pathlib import Path

import pytest
from scramp import ScramClient
from support.daemons import House, StartHouse
from support.raw_client import ServerError
from support.sessions import SEGMENT, refused

from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.frames import MAGIC, VERSION, pack_header
from dfs_server.protocol.messages import (
    Authenticate,
    GetPiece,
    GetPosition,
    GetStatus,
    HavePieces,
    Message,
    Position,
    Promise,
    Prove,
)
from dfs_server.protocol.status import Status


class TestAuthentication:
    def test_welcome_names_the_server(self, house: House) -> None:
        welcome = house.stranger().authenticate("alice", "alice-secret")
        assert (welcome.server, welcome.identity) == ("DFS1", house.identity)
        assert (house.root / "alice" / "namespace.db").is_file()

    @pytest.mark.parametrize(
        "request_",
        [GetStatus(), GetPosition(), HavePieces(()), GetPiece(SEGMENT, 1), Promise(Ballot(1, b"x" * 8))],
    )
    def test_nothing_else_is_answered_before(self, house: House, request_: Message) -> None:
        client = house.stranger()
        client.send(request_)
        assert refused(client) is Status.UNAUTHENTICATED
        assert not (house.root / "alice").exists()

    def test_a_proof_out_of_the_blue(self, house: House) -> None:
        client = house.stranger()
        client.send(Prove("c=biws,r=x,p=AAAA"))
        assert refused(client) is Status.UNAUTHENTICATED

    @pytest.mark.parametrize("user", ["alice", "mallory"])
    def test_a_wrong_password_and_an_unknown_user(self, house: House, user: str) -> None:
        client = house.stranger()
        with pytest.raises(ServerError, match=f"server DFS1 refused user '{user}'") as caught:
            client.authenticate(user, "wrong")
        assert caught.value.status is Status.AUTHENTICATION_FAILED
        assert client.is_closed_by_server()
        assert not (house.root / user).exists()

    def test_a_refused_login_is_logged_with_the_clients_address(
        self, house: House, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = house.stranger()
        with pytest.raises(ServerError):
            client.authenticate("mallory", "wrong")
        assert client.is_closed_by_server()
        (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
        host, port = client.address
        assert record.getMessage() == (
            f"the connection from {host}:{port} is closed: server DFS1 refused user 'mallory': "
            "unknown user or wrong password"
        )

    @pytest.mark.parametrize("user", ["..", "../bob", "/tmp/x", ".", "a\0b", "server.json", "a" * 3000])
    def test_names_that_lead_elsewhere(self, house: House, user: str) -> None:
        before = sorted(house.root.parent.rglob("*"))
        client = house.stranger()
        client.send(Authenticate(VERSION, user, "n,,n=alice,r=abcdef"))
        assert refused(client) is Status.AUTHENTICATION_FAILED
        assert sorted(house.root.parent.rglob("*")) == before

    def test_a_payload_or_a_large_body_is_not_for_strangers(self, house: House) -> None:
        for header in (pack_header(1, 10, 1), pack_header(1, 5000, 0)):
            client = house.stranger()
            client.send_raw(header)
            assert refused(client) is Status.BAD_REQUEST

    def test_a_client_that_does_not_authenticate_in_time_is_disconnected(self, start_house: StartHouse) -> None:
        house = start_house(authentication_s=0.05)
        silent, slow = house.stranger(), house.stranger()
        slow.send_raw(MAGIC)
        assert silent.is_closed_by_server()
        assert slow.is_closed_by_server()

    def test_authenticating_twice_on_a_connection(self, house: House) -> None:
        client = house.client()
        client.send(Authenticate(VERSION, "bob", "n,,n=bob,r=abcdef"))
        assert refused(client) is Status.BAD_REQUEST

    def test_another_version(self, house: House) -> None:
        client = house.stranger()
        client.send(Authenticate(77, "alice", ScramClient(["SCRAM-SHA-256"], "alice", "x").get_client_first()))
        assert refused(client) is Status.UNSUPPORTED_VERSION


def test_a_namespace_that_cannot_be_opened_is_told(house: House) -> None:
    (house.root / "alice").write_text("a file in the way")
    client = house.stranger()
    with pytest.raises(ServerError) as caught:
        client.authenticate("alice", "alice-secret")
    assert caught.value.status is Status.IO_ERROR
    assert client.is_closed_by_server()
    assert isinstance(house.client("bob").ask(GetPosition()), Position)


def test_a_folder_of_another_version_is_told(house: House, tmp_path: Path) -> None:
    (house.root / "alice").mkdir()
    (house.root / "alice" / "namespace.db").write_bytes(b"this is no SQLite file, but long enough" * 100)
    with pytest.raises(ServerError) as caught:
        house.stranger().authenticate("alice", "alice-secret")
    assert caught.value.status is Status.IO_ERROR
