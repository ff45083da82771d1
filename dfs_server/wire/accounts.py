"""Users, password verifiers, and the SCRAM-SHA-256 handshake (RFC 5802, RFC 7677) on the server's side. No IO.

A verifier lets a server check a password without knowing it; as text it is `SCRAM-SHA-256$<iterations>:<salt>$<stored
key>:<server key>` (after RFC 5803; the same as PostgreSQL's). An unknown user goes through the whole handshake with a
made-up verifier that stays the same from one attempt to the next, and finally fails just as a wrong password does: an
attacker cannot learn who has an account here. User names become folder names: one that does not match `USER_PATTERN` is
refused.

Threads: `Accounts` never changes; a `Handshake` belongs to one connection.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final, NamedTuple

from scramp import ScramException, ScramMechanism

from dfs_server.protocol.frames import VERSION
from dfs_server.protocol.messages import Authenticate, Prove
from dfs_server.protocol.status import Status

MECHANISM: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 4096
"""The count in RFC 7677. A client computes it for every connection that it opens, so it is no higher."""
SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32

USER_PATTERN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
RESERVED_NAMES: Final = frozenset({"server.json", "server.json.tmp"})
"""Other files in a server's folder whose names match the pattern."""

_mechanism = ScramMechanism(MECHANISM)
_TEXT: Final = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{3,7}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


def is_user_name(name: str) -> bool:
    """Whether `name` can be a user's name, and so a folder's."""
    return USER_PATTERN.fullmatch(name) is not None and name not in RESERVED_NAMES


class Verifier(NamedTuple):
    """What SCRAM needs to check one password, in the order that scramp expects."""

    salt: bytes
    stored_key: bytes
    server_key: bytes
    iterations: int

    @classmethod
    def of_password(cls, password: str, salt: bytes | None = None) -> Verifier:
        """The verifier of a plain password; with a random salt if none is given. ValueError: the password has forbidden
        characters."""
        if not password:
            raise ValueError("a password must not be empty")
        try:
            return cls(*_mechanism.make_auth_info(password, iteration_count=ITERATIONS, salt=salt))
        except ScramException as error:
            raise ValueError(f"this cannot be a password: {error}") from error

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Parse the text that `dfs-server --hash-password` prints. Raises ValueError."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError("not of the form SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>")
        try:
            salt, stored_key, server_key = (b64decode(part, validate=True) for part in match.groups()[1:])
        except binascii.Error as error:
            raise ValueError("its salt and keys are not base64") from error
        iterations = int(match[1])
        if len(salt) < 12 or len(stored_key) != _KEY_BYTES or len(server_key) != _KEY_BYTES:
            raise ValueError("its salt or one of its keys has the wrong length")
        if not ITERATIONS <= iterations <= 10_000_000:
            raise ValueError(f"its iteration count must be from {ITERATIONS} to 10000000")
        return cls(salt, stored_key, server_key, iterations)

    def __str__(self) -> str:
        salt, stored_key, server_key = (b64encode(part).decode() for part in self[:3])
        return f"{MECHANISM}${self.iterations}:{salt}${stored_key}:{server_key}"

    def __repr__(self) -> str:
        return "Verifier(...)"


class RefusedError(Exception):
    """Authentication failed. `status` and the text go to the client; the connection is closed afterwards."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class Accounts:
    """The users of one server. `secret` belongs to the server and never changes as long as its folder exists."""

    def __init__(self, server: str, verifiers: Mapping[str, Verifier], secret: bytes) -> None:
        self._server = server
        self._verifiers = dict(verifiers)
        self._secret = secret
        counts = [verifier.iterations for verifier in self._verifiers.values()]
        self._usual_iterations = max(counts, key=counts.count) if counts else ITERATIONS

    def verifier(self, user: str) -> Verifier:
        """The user's verifier; for an unknown user a made-up one that no password matches."""
        if (known := self._verifiers.get(user)) is not None:
            return known
        salt, stored_key, server_key = (self._made_up(part, user) for part in ("salt", "stored", "server"))
        return Verifier(salt[:SALT_BYTES], stored_key, server_key, self._usual_iterations)

    def _made_up(self, part: str, user: str) -> bytes:
        return hmac.digest(self._secret, f"{part}:{user}".encode(), hashlib.sha256)

    def handshake(self) -> Handshake:
        """The handshake of one connection."""
        return Handshake(self, self._server)

    def knows(self, user: str) -> bool:
        return user in self._verifiers


class Handshake:
    """Authenticate, then Prove, each once. Anything else raises `RefusedError`, which ends the handshake."""

    def __init__(self, accounts: Accounts, server: str) -> None:
        self._accounts = accounts
        self._server = server
        self._user = ""
        self._scram = _mechanism.make_server(self._verifier_of)

    def challenge(self, request: Authenticate) -> str:
        """The server's first SCRAM message."""
        if request.version != VERSION:
            text = f"the client speaks protocol version {request.version}; server {self._server} speaks {VERSION}"
            raise RefusedError(Status.UNSUPPORTED_VERSION, text)
        if self._user:
            raise RefusedError(Status.BAD_REQUEST, "authentication was begun twice")
        if not is_user_name(request.user):
            raise self._refused(request.user)
        self._user = request.user
        try:
            self._scram.set_client_first(request.scram)
            return str(self._scram.get_server_first())
        except ScramException as error:
            raise RefusedError(Status.BAD_REQUEST, f"not a SCRAM message: {error}") from error

    def prove(self, request: Prove) -> tuple[str, str]:
        """(user, the server's final SCRAM message), if the client knows the password."""
        if not self._user:
            raise RefusedError(Status.UNAUTHENTICATED, "authentication has not begun")
        try:
            self._scram.set_client_final(request.scram)
            final = str(self._scram.get_server_final())
        except ScramException as error:
            raise self._refused(self._user) from error
        # No password matches a made-up verifier; this check holds even if that reasoning should prove wrong.
        if not self._accounts.knows(self._user):
            raise self._refused(self._user)
        return self._user, final

    def _verifier_of(self, user: str) -> Verifier | None:
        return self._accounts.verifier(user) if user == self._user else None

    def _refused(self, user: str) -> RefusedError:
        shown = user if len(user) <= 64 else user[:64] + "..."
        text = f"server {self._server} refused user {shown!r}: unknown user or wrong password"
        return RefusedError(Status.AUTHENTICATION_FAILED, text)
