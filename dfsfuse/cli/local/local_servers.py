"""`dfsmount --local`: four private servers, with no config to write.

They live under $XDG_DATA_HOME/dfsfuse/local (~/.local/share/dfsfuse/local): DFS1..DFS4, and a config created once, with
free loopback ports and a random password. Several local mounts share them: each holds a shared lock while it is
mounted, and a mount that gets the exclusive lock when it ends is the last one and stops them. A killed mount loses its
lock; the servers it leaves running serve the next local mount, which stops them.
"""

from __future__ import annotations

import fcntl
import os
import random
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import yaml

from dfs_server.shared import durable, homes
from dfsfuse.cli.config import FILE_NAME, ClientConfig, read_config
from dfsfuse.cli.local import server_processes
from dfsfuse.cli.local.server_processes import ServerProcess, ServerStartError

NAMES = ("DFS1", "DFS2", "DFS3", "DFS4")
SERVER_FILE_NAME = "dfs.yaml"
USER = "local"


def default_folder() -> Path:
    """The folder of the user's own four servers. Raises `ServerStartError` if the user has no home."""
    data = homes.data_folder()
    if data is None:
        raise ServerStartError(f"--local has no folder for its servers: {homes.NO_HOME}. Set $XDG_DATA_HOME.")
    return data / "local"


@contextmanager
def running(folder: Path) -> Iterator[ClientConfig]:
    """Four running servers in `folder`, for the duration of the block. Raises `ServerStartError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(folder / "in-use.lock") as in_use:
        with _opened(folder / "starting.lock") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            config = ensure_config(folder)
            processes = processes_of(folder, config)
            server_processes.start(processes)
            fcntl.flock(in_use, fcntl.LOCK_SH)
        try:
            yield config
        finally:
            with _opened(folder / "starting.lock") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                if _nobody_else(in_use):
                    server_processes.stop(processes)


def ensure_config(folder: Path) -> ClientConfig:
    """Create both config files, if they do not exist yet, and read the client's."""
    client, server = folder / FILE_NAME, folder / SERVER_FILE_NAME
    if not client.exists() or not server.exists():
        password = secrets.token_urlsafe(24)
        ports = free_ports(len(NAMES))
        addresses = [{"name": name, "host": "127.0.0.1", "port": port} for name, port in zip(NAMES, ports, strict=True)]
        users = {"users": {USER: {"password": password}}}
        durable.write_file(server, yaml.safe_dump(users, sort_keys=False).encode())
        entries = {"servers": addresses, "username": USER, "password": password}
        durable.write_file(client, yaml.safe_dump(entries, sort_keys=False).encode())
    return read_config(client, {})


def processes_of(folder: Path, config: ClientConfig) -> list[ServerProcess]:
    """The server processes for `config`, with their folders in `folder`."""
    return [
        ServerProcess(folder / server.name, server.port, folder / SERVER_FILE_NAME, folder / "run", server.host)
        for server in config.servers
    ]


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on now.

    They should be free at the next start as well, so they are not from the range for outgoing connections.
    """
    chance = random.SystemRandom()
    with ExitStack() as opened:
        ports: list[int] = []
        for port in chance.sample(range(12_000, 30_000), 1000):
            probe = opened.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise ServerStartError("There are no four free ports on 127.0.0.1.")


def _nobody_else(in_use: int) -> bool:
    try:
        fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
