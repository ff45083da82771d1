"""Each way to cut a server off: what is sent meanwhile arrives only afterwards, and no end reports an error."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .network import Namespaces, Network, Proxies

ECHO = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    while data := connection.recv(65536):
        connection.sendall(data)
"""
WAYS = [Proxies, Namespaces] if os.geteuid() == 0 else [Proxies]


@contextlib.contextmanager
def connected(way: Network) -> Iterator[socket.socket]:
    """A connection to an echo server at the other end."""
    host, port = way.listens_on(1)
    command = way.command(1, [sys.executable, "-c", ECHO, host, str(port)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with socket.create_connection(way.address(1), timeout=10) as connection:
                yield connection
        finally:
            process.kill()


@pytest.mark.parametrize("kind", WAYS)
def test_what_is_sent_while_it_is_cut_arrives_afterwards(kind: type[Proxies] | type[Namespaces]) -> None:
    with kind(1) as way, connected(way) as connection:
        connection.sendall(b"before")
        assert connection.recv(100) == b"before"
        way.cut(1)
        connection.sendall(b"meanwhile")
        assert not select.select([connection], [], [], 0.3)[0], "the connection is not cut"
        way.join(1)
        connection.settimeout(30)
        assert connection.recv(100) == b"meanwhile"


def test_a_proxy_passes_on_a_refused_connection() -> None:
    with Proxies(1) as way, socket.create_connection(way.address(1), timeout=10) as connection:
        assert connection.recv(1) == b""
