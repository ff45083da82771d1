"""The config of the try-out that `make run` starts: conf/, with secret passwords.

conf/ is an example, and its passwords are known to everybody. So the servers and the client of the try-out read two
separate files in tryout/, a folder that only its owner can enter. They have the same contents as conf/, except that
each password from the example is replaced by a random one, which is generated once and kept in these files. A password
that was changed in conf/ stays. Data in DFS1 to DFS4 belongs to users, not to passwords, so a try-out that was created
with the example's passwords continues to work.

`dfc` and `dfsmount` find tryout/dfc.yaml automatically when they are run in this folder (`config_file.find`).

No threads. Files are replaced durably and atomically, and only if they change.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from dfs_server.shared import config_file, durable
from dfs_server.shared.config_file import ConfigError
from dfsfuse.cli.config import FILE_NAME
from dfsfuse.cli.local import local_servers

SERVER_FILE_NAME: Final = local_servers.SERVER_FILE_NAME
EXAMPLE_PASSWORDS: Final = frozenset(("alice-secret", "bob-secret"))
_HEADING: Final = "# Made by `make run` from {source}: change it there. The passwords belong to this try-out only.\n"


def ensure(example: Path, folder: Path) -> None:
    """Update both files in `folder` from those in `example`; generated passwords are kept.

    Raises `ConfigError` if a file cannot be read, and OSError if one cannot be written.
    """
    client = _mapping(example / FILE_NAME)
    server = _mapping(example / SERVER_FILE_NAME)
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    known = _passwords(folder / SERVER_FILE_NAME)
    users = server.get("users")
    users = {str(name): entry for name, entry in users.items()} if isinstance(users, Mapping) else {}
    own = {name: known.get(name) or secrets.token_urlsafe(24) for name, entry in users.items() if _is_example(entry)}
    server["users"] = {name: {"password": own[name]} if name in own else entry for name, entry in users.items()}
    if client.get("password") in EXAMPLE_PASSWORDS:
        client["password"] = own.get(str(client.get("username")), client["password"])
    elif "password_file" in client:
        client["password_file"] = os.fspath((example / str(client["password_file"])).absolute())
    _write(folder / SERVER_FILE_NAME, server, example / SERVER_FILE_NAME)
    _write(folder / FILE_NAME, client, example / FILE_NAME)


def _is_example(entry: object) -> bool:
    return isinstance(entry, Mapping) and entry.get("password") in EXAMPLE_PASSWORDS


def _mapping(file: Path) -> dict[str, object]:
    """The contents of the file; the keys are checked by the programs that read the result."""
    content = config_file.load(file)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file}: found no keys; expected a config like that of the project's conf/")
    return {str(key): value for key, value in content.items()}


def _passwords(file: Path) -> dict[str, str]:
    """The passwords that were generated before."""
    if not file.exists():
        return {}
    users = _mapping(file).get("users")
    entries = users.items() if isinstance(users, Mapping) else ()
    return {
        str(name): entry["password"]
        for name, entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("password"), str) and not _is_example(entry)
    }


def _write(file: Path, content: Mapping[str, object], source: Path) -> None:
    text = _HEADING.format(source=source) + yaml.safe_dump(dict(content), sort_keys=False)
    if not file.exists() or file.read_bytes() != text.encode() or file.stat().st_mode & 0o077:
        durable.write_file(file, text.encode())
