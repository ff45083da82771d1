"""The client's config, `dfc.yaml`: the four servers, the user, the password.

    servers:
      - {name: DFS1, host: 127.0.0.1, port: 10001}      # exactly four
      ...
    username: alice
    password: alice-secret      # or password_file: FILE (relative to this file), or $DFS_PASSWORD

Knows the keys and their allowed values; reading YAML and wording the errors is up to `dfs_server.shared.config_file`.
$DFS_PASSWORD overrides both keys, so that a script needs no file with a secret in it. Checks only the file's contents:
whether the servers answer and accept the user is found out by `dfsfuse.cli.session`. No threads, no state.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dfs_server.protocol.limits import SERVERS
from dfs_server.shared import config_file, homes
from dfs_server.shared.config_file import At, ConfigError
from dfsfuse.net.servers import Credentials, ServerAddress

FILE_NAME = "dfc.yaml"
PASSWORD_VARIABLE = "DFS_PASSWORD"
_MAX_PASSWORD_FILE_BYTES = 4096
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
_HOST = r"[^\s/@]{1,253}"


@dataclass(frozen=True)
class ClientConfig:
    """The contents of the config file, checked."""

    path: Path
    servers: tuple[ServerAddress, ServerAddress, ServerAddress, ServerAddress]
    credentials: Credentials
    warnings: tuple[str, ...] = ()
    """Sentences for the user: nothing is wrong, but something should be improved."""
    password_file: Path | None = None
    """The file that the password was read from, if it is a separate one."""


def load_config(explicit: Path | None = None, environment: Mapping[str, str] | None = None) -> ClientConfig:
    """Find and read the config. Raises `ConfigError` with file, key, what was found and what was expected."""
    path = config_file.find(explicit, FILE_NAME)
    return read_config(path.absolute(), os.environ if environment is None else environment)


def read_config(
    path: Path, environment: Mapping[str, str], may_open: Callable[[Path], bool] = lambda _: True
) -> ClientConfig:
    """Read the config file at `path`. `may_open` decides whether a file may be opened, in case opening it could block.

    Raises `ConfigError`.
    """
    if not may_open(path):
        raise ConfigError(f"{path} is below the mountpoint, and cannot be read while that is mounted")
    keys = config_file.mapping(
        config_file.load(path),
        At(path),
        required=("servers", "username"),
        optional=("password", "password_file"),
    )
    servers = _servers(keys["servers"], At(path, "servers"))
    username = config_file.text(
        keys["username"], At(path, "username"), "a user's name (letters, digits, '.', '_', '-')", pattern=_NAME
    )
    password, warnings, password_file = _password(keys, path, environment, may_open)
    return ClientConfig(path, servers, Credentials(username, password), warnings, password_file)


def _servers(value: object, at: At) -> tuple[ServerAddress, ServerAddress, ServerAddress, ServerAddress]:
    expected = f"a list of exactly {SERVERS} servers, each {{name: DFS1, host: 127.0.0.1, port: 10001}}"
    items = config_file.sequence(value, at, expected)
    if len(items) != SERVERS:
        raise at.error(f"{len(items)} servers", expected)
    found = [_server(item, at.child(index), index + 1) for index, item in enumerate(items)]
    names: dict[str, int] = {}
    addresses: dict[tuple[str, int], int] = {}
    for index, server in enumerate(found):
        if server.name in names:
            raise (
                at.child(index)
                .child("name")
                .error(f"{server.name!r}, which is already the name of item {names[server.name] + 1}", "a unique name")
            )
        address = (server.host.lower(), server.port)
        if address in addresses:
            raise (
                at.child(index)
                .child("port")
                .error(
                    f"{server.host}:{server.port}, which item {addresses[address] + 1} already has",
                    "a different address for each server",
                )
            )
        names[server.name] = addresses[address] = index
    one, two, three, four = found
    return one, two, three, four


def _server(value: object, at: At, server_id: int) -> ServerAddress:
    keys = config_file.mapping(value, at, required=("name", "host", "port"))
    return ServerAddress(
        id=server_id,
        name=config_file.text(
            keys["name"], at.child("name"), "a server's name, the last part of its folder, like DFS1", pattern=_NAME
        ),
        host=config_file.text(keys["host"], at.child("host"), "a host name or address, like 127.0.0.1", pattern=_HOST),
        port=config_file.integer(keys["port"], at.child("port"), low=1, high=65535),
    )


def _password(
    keys: Mapping[str, object], path: Path, environment: Mapping[str, str], may_open: Callable[[Path], bool]
) -> tuple[str, tuple[str, ...], Path | None]:
    """The password, warnings about it, and its file if it is a separate one."""
    from_environment = environment.get(PASSWORD_VARIABLE, "")
    given = [key for key in ("password", "password_file") if key in keys]
    at = At(path, given[-1] if given else "password")
    if len(given) == 2:
        raise at.error("both 'password' and 'password_file'", f"one of them, or neither and ${PASSWORD_VARIABLE}")
    if from_environment:
        return from_environment, _readable_by_others(path) if "password" in keys else (), None
    if "password" in keys:
        password = config_file.secret(keys["password"], at, "a password, as a text")
        return password, _readable_by_others(path), None
    if "password_file" in keys:
        return _from_file(keys["password_file"], at, may_open)
    raise at.error("nothing", f"'password', 'password_file' or ${PASSWORD_VARIABLE}")


def password_note(environment: Mapping[str, str]) -> str:
    """A note for a refused password: that it did not come from the config, if so."""
    return f"the password was that of ${PASSWORD_VARIABLE}" if environment.get(PASSWORD_VARIABLE) else ""


def _from_file(value: object, at: At, may_open: Callable[[Path], bool]) -> tuple[str, tuple[str, ...], Path]:
    name = config_file.text(value, at, "the path of a file whose first line is the password")
    path = Path(name)
    try:
        path = at.file.parent / homes.expanded(name)
        if not may_open(path):
            raise at.error(f"{path}, which is below the mountpoint and cannot be read now", "a file elsewhere")
        with path.open("rb") as file:
            data = file.read(_MAX_PASSWORD_FILE_BYTES + 1)
        password = data.decode().partition("\n")[0].removesuffix("\r")
    except OSError as error:
        raise at.error(f"{path}, which cannot be read ({error.strerror})", "a readable file") from error
    except UnicodeDecodeError as error:
        raise at.error(f"{path}, which is not UTF-8 text", "a file whose first line is the password") from error
    if not password or len(data) > _MAX_PASSWORD_FILE_BYTES:
        raise at.error(
            f"{path}, which is {'too long' if password else 'empty'}", "a file whose first line is the password"
        )
    return password, _readable_by_others(path), path


def _readable_by_others(path: Path) -> tuple[str, ...]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path}: cannot be examined: {error.strerror}") from error
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        return (
            f"{path} holds a plain password and can be read by others: run `chmod 600 {shlex.quote(os.fspath(path))}`, "
            f"or use password_file or ${PASSWORD_VARIABLE}.",
        )
    return ()
