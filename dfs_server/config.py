"""The server's config: its users and its limits. See conf/dfs.yaml for the meaning of each key.

Knows the keys of dfs.yaml; `config_file` reads the file and words the errors. No state, no threads.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dfs_server.shared import config_file
from dfs_server.shared.config_file import At
from dfs_server.wire.accounts import Verifier, is_user_name

FILE_NAME: Final = "dfs.yaml"
_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class ServerConfig:
    """The contents of dfs.yaml. Plain passwords are converted to verifiers and forgotten while it is read."""

    users: dict[str, Verifier] = field(repr=False)
    grace_period_s: float = 600.0
    """How long dropped pieces are kept for clients that may still read them."""
    reserve_bytes: int = 64 * _MIB
    """Space on the disk that pieces must leave free, so that the log can go on."""
    max_connections: int = 256
    scrub_days: float = 30.0
    """Each piece is checked once in this many days; 0: never."""
    scrub_mb_s: float = 8.0
    """Maximum rate at which the scrub reads, in MB a second."""
    warnings: tuple[str, ...] = ()


def read(path: Path) -> ServerConfig:
    """Read the config from the file. Raises `ConfigError`."""
    at = At(path)
    keys = config_file.mapping(
        config_file.load(path),
        at,
        required=("users",),
        optional=("grace_period_s", "reserve_bytes", "max_connections", "scrub_days", "scrub_mb_s"),
    )
    users, plain = _users(keys["users"], at.child("users"))
    return ServerConfig(
        users=users,
        grace_period_s=config_file.number(
            keys.get("grace_period_s", ServerConfig.grace_period_s),
            at.child("grace_period_s"),
            low=0,
            high=1e9,
        ),
        reserve_bytes=config_file.integer(
            keys.get("reserve_bytes", ServerConfig.reserve_bytes),
            at.child("reserve_bytes"),
            low=0,
            high=2**60,
        ),
        max_connections=config_file.integer(
            keys.get("max_connections", ServerConfig.max_connections),
            at.child("max_connections"),
            low=8,
            high=4096,
        ),
        scrub_days=config_file.number(
            keys.get("scrub_days", ServerConfig.scrub_days), at.child("scrub_days"), low=0, high=3650
        ),
        scrub_mb_s=config_file.number(
            keys.get("scrub_mb_s", ServerConfig.scrub_mb_s), at.child("scrub_mb_s"), low=0.1, high=10_000
        ),
        warnings=_warnings(path, plain),
    )


def _users(value: object, at: At) -> tuple[dict[str, Verifier], list[str]]:
    """The verifiers, and the names of the users whose passwords are in plain text."""
    expected = "users, each with a password: alice: {password: ...} or alice: {scram: ...}"
    entries = config_file.any_mapping(value, at, expected)
    if not entries:
        raise at.error("no user", expected)
    verifiers: dict[str, Verifier] = {}
    plain: list[str] = []
    for name, entry in entries.items():
        if not is_user_name(name):
            raise at.error(
                f"the user name {name!r}",
                "1 to 64 letters, digits, '_', '.' or '-', the first one a letter, digit or '_' (it names a folder)",
            )
        place = at.child(name)
        keys = config_file.mapping(entry, place, optional=("password", "scram"))
        if len(keys) != 1:
            raise place.error("both" if keys else "neither", "either 'password' or 'scram'")
        if "password" in keys:
            plain.append(name)
            password = place.child("password")
            verifiers[name] = config_file.secret_as(keys["password"], password, "a password", Verifier.of_password)
        else:
            expected = "what 'dfs-server --hash-password' prints"
            verifiers[name] = config_file.secret_as(keys["scram"], place.child("scram"), expected, Verifier.parse)
    return verifiers, plain


def _warnings(path: Path, plain: list[str]) -> tuple[str, ...]:
    mode = path.stat().st_mode & 0o777
    if not plain or not mode & 0o077:
        return ()
    return (
        f"{path}: the plain password of {', '.join(plain)} can be read by others (mode {mode:03o}); "
        f"run `chmod 600 {shlex.quote(str(path))}`, or put what 'dfs-server --hash-password' prints there as 'scram:'",
    )
