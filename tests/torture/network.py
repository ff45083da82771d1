"""The network between the clients and each server, and cutting it silently, like pulling a cable.

As root, each server lives in a network namespace of its own, at the other end of a veth pair; when cut, the far end is
down, and packets vanish. Other users get a proxy in front of each server; when cut, it neither accepts nor forwards
anything, and closes nothing. Servers are known by their number only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from support.ports import free_ports

CHUNK_BYTES: Final = 256 * 1024
COMMAND_S: Final = 20.0


class Network(Protocol):
    """See the module. Servers are numbered from 1."""

    name: str

    def address(self, server: int) -> tuple[str, int]:
        """Return the server's address for clients."""

    def command(self, server: int, command: Sequence[str]) -> list[str]:
        """Return the server's command line, adapted to where it runs and listens."""

    def listens_on(self, server: int) -> tuple[str, int]:
        """Return the address where the server listens."""

    def cut(self, server: int) -> None:
        """Let nothing reach or leave the server any more."""

    def join(self, server: int) -> None:
        """Undo `cut`."""


@contextlib.contextmanager
def network(servers: int) -> Iterator[Network]:
    """Return the best kind of network available."""
    if os.geteuid() == 0 and _may_make_namespaces():
        with Namespaces(servers) as namespaces:
            yield namespaces
    else:
        with Proxies(servers) as proxies:
            yield proxies


def _ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if check and done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _may_make_namespaces() -> bool:
    name = f"dfs{os.getpid()}probe"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", f"{name[:13]}a", "type", "veth", "peer", "name", f"{name[:13]}b", "netns", name)
        return True
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            _ip("netns", "del", name, check=False)


class Namespaces(contextlib.ExitStack):
    """Each server in a network namespace. A context manager."""

    PORT: Final = 10001

    def __init__(self, servers: int) -> None:
        super().__init__()
        self.name = "network namespaces"
        self._servers = servers

    def __enter__(self) -> Namespaces:
        with contextlib.ExitStack() as made:
            for server in range(1, self._servers + 1):
                namespace, near, far = self._names(server)
                _ip("netns", "add", namespace)
                made.callback(_ip, "netns", "del", namespace, check=False)
                _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
                made.callback(_ip, "link", "del", near, check=False)  # otherwise it goes some time after the namespace
                _ip("addr", "add", f"{self._host(server, 1)}/30", "dev", near)
                _ip("link", "set", near, "up")
                _ip("-n", namespace, "addr", "add", f"{self._host(server, 2)}/30", "dev", far)
                _ip("-n", namespace, "link", "set", "lo", "up")
                _ip("-n", namespace, "link", "set", far, "up")
            self.push(made.pop_all())
        return self

    def _names(self, server: int) -> tuple[str, str, str]:
        return f"dfs{os.getpid()}x{server}", f"dfs{os.getpid()}n{server}", f"dfs{os.getpid()}f{server}"

    def _host(self, server: int, end: int) -> str:
        pid = os.getpid()
        return f"10.{200 + pid % 50}.{pid // 50 % 250}.{4 * server + end}"

    def address(self, server: int) -> tuple[str, int]:
        return self._host(server, 2), self.PORT

    listens_on = address

    def command(self, server: int, command: Sequence[str]) -> list[str]:
        # `ip netns exec` adds a mount namespace, in which our mounts would survive their unmounting
        return ["nsenter", f"--net=/var/run/netns/{self._names(server)[0]}", *command]

    def cut(self, server: int) -> None:
        namespace, _, far = self._names(server)
        _ip("-n", namespace, "link", "set", far, "down")

    def join(self, server: int) -> None:
        namespace, _, far = self._names(server)
        _ip("-n", namespace, "link", "set", far, "up")


class Proxies(contextlib.ExitStack):
    """A proxy in front of each server. A context manager."""

    def __init__(self, servers: int) -> None:
        super().__init__()
        self.name = "proxies"
        ports = free_ports(2 * servers)
        self._ports = {server: ports[2 * server - 2] for server in range(1, servers + 1)}
        self._proxies = {server: Proxy(ports[2 * server - 1], self._ports[server]) for server in range(1, servers + 1)}

    def __enter__(self) -> Proxies:
        for proxy in self._proxies.values():
            proxy.start()
            self.callback(proxy.close)
        return self

    def address(self, server: int) -> tuple[str, int]:
        return "127.0.0.1", self._proxies[server].port

    def listens_on(self, server: int) -> tuple[str, int]:
        return "127.0.0.1", self._ports[server]

    def command(self, server: int, command: Sequence[str]) -> list[str]:
        return list(command)

    def cut(self, server: int) -> None:
        self._proxies[server].is_open.clear()

    def join(self, server: int) -> None:
        self._proxies[server].is_open.set()


class Proxy:
    """Forwards connections from one local port to another while `is_open`; while it `rejects`, closes them at once.
    `_lock` guards `_sockets`."""

    def __init__(self, port: int, to_port: int) -> None:
        self.port = port
        self.is_open = threading.Event()
        self.is_open.set()
        self.rejects = False
        self._to_port = to_port
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._keep(self._listener)
        self._run(self._accept, self._listener)

    def reject(self) -> None:
        """Close all connections, and each new one at once, until `rejects` is false again."""
        self.rejects = True
        with self._lock:
            sockets = self._sockets - {self._listener}
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _run(self, action, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=action, args=arguments, daemon=True, name="proxy")
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)
        if self._closed:
            self._let_go(connection)

    def _let_go(self, *connections: socket.socket) -> None:
        with self._lock:
            self._sockets.difference_update(connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # wakes threads that wait in it
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.is_open.wait()
            if self.rejects:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to_port), timeout=COMMAND_S)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            for connection in (near, far):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._keep(connection)
            self._run(self._pass_on, near, far)
            self._run(self._pass_on, far, near)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self.is_open.wait()
                target.sendall(data)
        self.is_open.wait()  # a closed connection is not seen through a cut either
        self._let_go(source, target)

    def close(self) -> None:
        self._closed = True
        self.is_open.set()
        with self._lock:
            sockets = list(self._sockets)
        self._let_go(*sockets)
        for thread in self._threads:
            thread.join(COMMAND_S)
