"""The four servers' addresses, and the user's credentials. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ServerAddress:
    """One of the four servers: `id` is its position in the client's config, 1 to 4; extents name it by that."""

    id: int
    name: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name} ({host}:{self.port})"


@dataclass(frozen=True)
class Credentials:
    """Who the client is. The password is excluded from repr(), so that no log or traceback shows it."""

    username: str
    password: str = field(repr=False)


class UnknownHostError(OSError):
    """A server's host name resolves to no address."""
