"""The client's side of the greeting, step by step."""

from __future__ import annotations

import pytest
from scramp import ScramMechanism

from dfs_server.protocol import frames
from dfs_server.protocol.frames import ProtocolError
from dfs_server.protocol.messages import Challenge, Done, Error, Prove, Welcome
from dfs_server.protocol.status import Status
from dfsfuse.errors import AuthenticationError, WrongServerError
from dfsfuse.net.handshake import MAX_ITERATIONS, Handshake, RefusalError
from dfsfuse.net.servers import Credentials, ServerAddress

SERVER = ServerAddress(2, "DFS2", "127.0.0.1", 10002)
ALICE = Credentials("alice", "alice-secret")
MECHANISM = ScramMechanism("SCRAM-SHA-256")
VERIFIER = MECHANISM.make_auth_info(ALICE.password)


class Peer:
    """The server's side."""

    def __init__(self) -> None:
        self.scram = MECHANISM.make_server(lambda user: VERIFIER)

    def challenge(self, handshake: Handshake) -> Prove:
        self.scram.set_client_first(handshake.first().scram)
        proof = handshake.step(Challenge(self.scram.get_server_first()))
        assert proof is not None
        return proof

    def final(self, proof: Prove) -> str:
        self.scram.set_client_final(proof.scram)
        return str(self.scram.get_server_final())


def test_both_sides_prove_who_they_are() -> None:
    handshake, peer = Handshake(SERVER, ALICE), Peer()
    proof = peer.challenge(handshake)
    assert handshake.step(Welcome(peer.final(proof), "DFS2", b"")) is None


def test_first_message_names_user_and_version_and_not_the_password() -> None:
    first = Handshake(SERVER, ALICE).first()
    assert (first.version, first.user) == (frames.VERSION, "alice")
    assert "secret" not in first.scram


def test_refusal_names_server_and_user_and_says_what_to_do() -> None:
    handshake, peer = Handshake(SERVER, ALICE), Peer()
    peer.challenge(handshake)
    with pytest.raises(AuthenticationError) as caught:
        handshake.step(Error(Status.AUTHENTICATION_FAILED, "no"))
    text = str(caught.value)
    assert text.startswith("server DFS2 (127.0.0.1:10002) refuses user 'alice': wrong user name or password; ")
    assert "secret" not in text


def test_another_server_at_this_address_is_noticed() -> None:
    handshake, peer = Handshake(SERVER, ALICE), Peer()
    proof = peer.challenge(handshake)
    with pytest.raises(WrongServerError, match=r"127\.0\.0\.1:10002 is DFS3, and the client's config says DFS2"):
        handshake.step(Welcome(peer.final(proof), "DFS3", b""))


@pytest.mark.parametrize("final", ["v=" + "A" * 43 + "=", "v=AAAA", "e=other-error", "", "v=\N{SNOWMAN}"])
def test_server_that_cannot_prove_itself_is_the_wrong_one(final: str) -> None:
    handshake, peer = Handshake(SERVER, ALICE), Peer()
    peer.challenge(handshake)
    with pytest.raises(WrongServerError, match="cannot prove"):
        handshake.step(Welcome(final, "DFS2", b""))


def test_welcome_without_a_proof_asked_for_is_no_welcome() -> None:
    handshake = Handshake(SERVER, ALICE)
    handshake.first()
    with pytest.raises(ProtocolError):
        handshake.step(Welcome("v=AAAA", "DFS2", b""))


def test_second_challenge_is_refused() -> None:
    handshake, peer = Handshake(SERVER, ALICE), Peer()
    peer.challenge(handshake)
    with pytest.raises(ProtocolError):
        handshake.step(Challenge("r=x,s=AAAA,i=4096"))


@pytest.mark.parametrize("scram", ["", "r=other,s=c2FsdHNhbHRzYWx0,i=4096", "nonsense", "r=,s=,i=", "e=unknown-user"])
def test_challenge_that_is_none(scram: str) -> None:
    handshake = Handshake(SERVER, ALICE)
    handshake.first()
    with pytest.raises(ProtocolError):
        handshake.step(Challenge(scram))


def test_server_may_not_ask_for_minutes_of_work() -> None:
    handshake = Handshake(SERVER, ALICE)
    nonce = handshake.first().scram.rpartition("r=")[2]
    with pytest.raises(ProtocolError, match="iterations"):
        handshake.step(Challenge(f"r={nonce}abc,s=c2FsdHNhbHRzYWx0,i={MAX_ITERATIONS + 1}"))


def test_reply_of_another_kind() -> None:
    handshake = Handshake(SERVER, ALICE)
    handshake.first()
    with pytest.raises(ProtocolError, match="Done"):
        handshake.step(Done())


def test_busy_server_says_nothing_about_the_user() -> None:
    handshake = Handshake(SERVER, ALICE)
    handshake.first()
    with pytest.raises(RefusalError) as caught:
        handshake.step(Error(Status.BUSY, "too many connections"))
    assert caught.value.status == Status.BUSY


@pytest.mark.parametrize(
    "credentials", [Credentials("", "x"), Credentials("al\x00ice", "x"), Credentials("alice", "\x07")]
)
def test_names_and_passwords_that_no_server_can_have(credentials: Credentials) -> None:
    with pytest.raises(AuthenticationError, match="cannot be used"):
        Handshake(SERVER, credentials)
