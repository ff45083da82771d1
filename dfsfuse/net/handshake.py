"""Mutual authentication: the client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), as steps. Pure but for scramp's
nonce.

The password is never sent, and both sides prove something: the client that it knows the password, the server that it
knows the user's verifier. The server's name is compared with the config's, so that two servers that were swapped are
noticed before a byte is read from or written to them.

A step costs 2 ms at the usual 4,096 iterations, once for each connection; connections are kept, and scramp has no API
for a previously derived key, so nothing is cached here. What a server may ask for is bounded, since the thread that is
stepping also drives the other servers.
"""

from __future__ import annotations

from typing import Final

from scramp import ScramClient, ScramException

from dfs_server.protocol import frames
from dfs_server.protocol.frames import ProtocolError
from dfs_server.protocol.messages import Authenticate, Challenge, Error, Prove, Reply, Welcome
from dfs_server.protocol.status import Status
from dfsfuse.errors import AuthenticationError, WrongServerError
from dfsfuse.net.servers import Credentials, ServerAddress

MAX_ITERATIONS: Final = 200_000
"""About 0.1 s of this client's time."""


class RefusalError(Exception):
    """The server answered the greeting with an `Error` that says nothing about the user; for example, it is busy."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Handshake:
    """One authentication: send `first()`, then feed each reply to `step()` until it returns None."""

    def __init__(self, server: ServerAddress, credentials: Credentials) -> None:
        """Raise `AuthenticationError` if no server could accept this user name or password."""
        self._server = server
        self._user = credentials.username
        self._proved = False
        self.identity = b""
        """The identity of the server's folder, once both sides have proved who they are."""
        try:
            self._scram = ScramClient(["SCRAM-SHA-256"], credentials.username, credentials.password)
        except ScramException as error:
            raise AuthenticationError(f"user name {self._user!r} or its password cannot be used: {error}") from error

    def first(self) -> Authenticate:
        """Return the first message of a connection."""
        return Authenticate(frames.VERSION, self._user, self._scram.get_client_first())

    def step(self, reply: Reply) -> Prove | None:
        """Return the next message, or None when both sides have proved who they are.

        Raises `AuthenticationError`, `WrongServerError`, `RefusalError` or `ProtocolError`; the connection is
        of no further use after any of them.
        """
        match reply:
            case Challenge() if not self._proved:
                return self._answer(reply)
            case Welcome() if self._proved:
                self._check(reply)
                return None
            case Error(status=Status.AUTHENTICATION_FAILED):
                raise AuthenticationError(
                    f"server {self._server} refuses user {self._user!r}: wrong user name or password; "
                    "correct them in the client's config, or add the user to the server's"
                )
            case Error():
                raise RefusalError(reply.status, reply.text)
        raise ProtocolError(f"{type(reply).__name__} is no answer to a greeting")

    def _answer(self, challenge: Challenge) -> Prove:
        try:
            self._scram.set_server_first(challenge.scram)
            iterations = int(self._scram.iterations)
            if iterations > MAX_ITERATIONS:
                raise ProtocolError(
                    f"{iterations:,} iterations of SCRAM are asked for; at most {MAX_ITERATIONS:,} are done"
                )
            proof = self._scram.get_client_final()
        except ScramException as error:
            raise ProtocolError(f"not a challenge: {error}") from error
        self._proved = True
        return Prove(proof)

    def _check(self, welcome: Welcome) -> None:
        try:
            self._scram.set_server_final(welcome.scram)
        except ScramException as error:
            raise WrongServerError(
                f"what answers at {self._server} cannot prove that it knows user {self._user!r}: {error}"
            ) from error
        if welcome.server != self._server.name:
            raise WrongServerError(
                f"the server at {self._server.host}:{self._server.port} is {welcome.server}, and the client's config "
                f"says {self._server.name}: correct name or address of item {self._server.id} of servers there"
            )
        self.identity = welcome.identity
