"""SCRAM on the server's side: only clients that know the password are admitted, and others learn nothing."""

from __future__ import annotations

import pytest
from scramp import ScramClient, ScramException

from dfs_server.protocol.frames import VERSION
from dfs_server.protocol.messages import Authenticate, Prove
from dfs_server.protocol.status import Status
from dfs_server.wire.accounts import Accounts, RefusedError, Verifier, is_user_name

SALT = b"0123456789abcdef"


@pytest.fixture
def accounts() -> Accounts:
    return Accounts("DFS1", {"alice": Verifier.of_password("alice-secret", SALT)}, b"the server's own")


def log_in(accounts: Accounts, user: str, password: str, scram_user: str | None = None) -> str:
    """Authenticate, with the client checking the server's proof too, and return the user that the server has
    verified."""
    client = ScramClient(["SCRAM-SHA-256"], scram_user or user, password)
    handshake = accounts.handshake()
    client.set_server_first(handshake.challenge(Authenticate(VERSION, user, client.get_client_first())))
    proven, final = handshake.prove(Prove(client.get_client_final()))
    client.set_server_final(final)
    return proven


def test_the_right_password(accounts: Accounts) -> None:
    assert log_in(accounts, "alice", "alice-secret") == "alice"


def test_the_verifier_as_text_is_as_good_as_the_password() -> None:
    text = str(Verifier.of_password("alice-secret"))
    assert text.startswith("SCRAM-SHA-256$4096:")
    assert log_in(Accounts("DFS1", {"alice": Verifier.parse(text)}, b"s"), "alice", "alice-secret") == "alice"


def test_salts_differ() -> None:
    assert Verifier.of_password("same").salt != Verifier.of_password("same").salt


def test_a_wrong_password_and_an_unknown_user_look_the_same(accounts: Accounts) -> None:
    texts = []
    for user in ("alice", "mallory"):
        with pytest.raises(RefusedError) as caught:
            log_in(accounts, user, "guess")
        assert caught.value.status is Status.AUTHENTICATION_FAILED
        texts.append(str(caught.value).replace(user, "USER"))
    assert texts[0] == texts[1]
    assert "DFS1" in texts[0]


def test_an_unknown_user_s_challenge_is_like_a_known_one_s_each_time(accounts: Accounts) -> None:
    def salt_and_count(of: Accounts, user: str) -> str:
        challenge = of.handshake().challenge(Authenticate(VERSION, user, f"n,,n={user},r=abcdef"))
        return challenge.split(",", 1)[1]

    assert salt_and_count(accounts, "mallory") == salt_and_count(accounts, "mallory")
    assert len(salt_and_count(accounts, "mallory")) == len(salt_and_count(accounts, "alice"))
    assert salt_and_count(accounts, "mallory") != salt_and_count(accounts, "mallory2")
    assert salt_and_count(accounts, "mallory") != salt_and_count(Accounts("DFS1", {}, b"other"), "mallory")


def test_a_made_up_verifier_admits_no_client_even_if_its_keys_were_known() -> None:
    accounts = Accounts("DFS1", {}, b"s")
    known = Accounts("DFS1", {"mallory": accounts.verifier("mallory")}, b"s")
    with pytest.raises(RefusedError):
        log_in(known, "mallory", "guess")
    assert not accounts.knows("mallory")


@pytest.mark.parametrize(
    "name", ["..", ".", "", ".lock", "server.json", "a/b", "/etc", "a\0", "a\n", "é", "-a", "a" * 65, "a b"]
)
def test_names_that_cannot_be_folders_get_nowhere(accounts: Accounts, name: str) -> None:
    assert not is_user_name(name)
    with pytest.raises(RefusedError) as caught:
        accounts.handshake().challenge(Authenticate(VERSION, name, "n,,n=alice,r=abcdef"))
    assert caught.value.status is Status.AUTHENTICATION_FAILED
    assert len(str(caught.value)) < 300


def test_usual_names_can(accounts: Accounts) -> None:
    assert all(map(is_user_name, ["alice", "Bob", "a.b-c_d", "_x", "7", "a" * 64]))


def test_the_name_outside_and_inside_the_scram_message_must_be_the_same(accounts: Accounts) -> None:
    with pytest.raises(RefusedError):
        log_in(accounts, "bob", "alice-secret", scram_user="alice")
    with pytest.raises(RefusedError):
        log_in(accounts, "alice", "alice-secret", scram_user="bob")


@pytest.mark.parametrize(
    "message",
    [
        "",
        "x",
        ",",
        ",,",
        "n,,",
        "n,,n=alice",
        "n,,r=abc",
        "y,,n=alice,r=",
        "p=tls-unique,,n=alice,r=abc",
        "n,,n=alice,r=a\0b",
        "n,,m=1,n=alice,r=abc",
        "n,,n=ali=ce,r=abc",
        "n,,n=\u0627a,r=abc",
        "=" * 4000,
    ],
)
def test_nonsense_instead_of_the_first_message(accounts: Accounts, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        accounts.handshake().challenge(Authenticate(VERSION, "alice", message))
    assert caught.value.status is Status.BAD_REQUEST


@pytest.mark.parametrize("message", ["", "c=biws", "c=biws,r=x,p=AAAA", "c=!,r=,p=", "\u20ac", "c=\u20ac,r=x,p=\u20ac"])
def test_nonsense_instead_of_the_proof(accounts: Accounts, message: str) -> None:
    handshake = accounts.handshake()
    handshake.challenge(Authenticate(VERSION, "alice", "n,,n=alice,r=abcdef"))
    with pytest.raises(RefusedError) as caught:
        handshake.prove(Prove(message))
    assert caught.value.status is Status.AUTHENTICATION_FAILED


def test_a_proof_cannot_be_replayed(accounts: Accounts) -> None:
    client = ScramClient(["SCRAM-SHA-256"], "alice", "alice-secret")
    handshake = accounts.handshake()
    first = client.get_client_first()
    client.set_server_first(handshake.challenge(Authenticate(VERSION, "alice", first)))
    proof = client.get_client_final()
    handshake.prove(Prove(proof))
    again = accounts.handshake()
    again.challenge(Authenticate(VERSION, "alice", first))
    with pytest.raises(RefusedError):
        again.prove(Prove(proof))


def test_the_order_of_things(accounts: Accounts) -> None:
    with pytest.raises(RefusedError) as caught:
        accounts.handshake().prove(Prove("c=biws,r=x,p=AAAA"))
    assert caught.value.status is Status.UNAUTHENTICATED
    handshake = accounts.handshake()
    handshake.challenge(Authenticate(VERSION, "alice", "n,,n=alice,r=abcdef"))
    with pytest.raises(RefusedError) as caught:
        handshake.challenge(Authenticate(VERSION, "alice", "n,,n=alice,r=abcdef"))
    assert caught.value.status is Status.BAD_REQUEST


def test_another_version_of_the_protocol_is_named(accounts: Accounts) -> None:
    with pytest.raises(RefusedError, match="speaks protocol version 99") as caught:
        accounts.handshake().challenge(Authenticate(99, "alice", "n,,n=alice,r=abcdef"))
    assert caught.value.status is Status.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    "text",
    [
        "",
        "geheim",
        "SCRAM-SHA-1$4096:YWFh$YWFh:YWFh",
        "SCRAM-SHA-256$1000:YWFhYWFhYWFhYWFh$YWFh:YWFh",
        "SCRAM-SHA-256$4096:a$b:c",
        "SCRAM-SHA-256$4096:YWFh$YWFh:YWFh",
    ],
)
def test_texts_that_are_no_verifier(text: str) -> None:
    with pytest.raises(ValueError, match=r"not of the form|base64|length|count"):
        Verifier.parse(text)


def test_a_password_must_be_one() -> None:
    for password in ("", "a\x07b"):
        with pytest.raises(ValueError, match="password"):
            Verifier.of_password(password)


def test_a_server_that_does_not_know_the_password_cannot_pretend() -> None:
    client = ScramClient(["SCRAM-SHA-256"], "alice", "alice-secret")
    client.get_client_first()
    client.set_server_first(f"r={client.c_nonce}xyz,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=4096")
    client.get_client_final()
    with pytest.raises(ScramException):
        client.set_server_final("v=" + "A" * 43 + "=")
