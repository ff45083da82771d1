"""Servers whose machines have vanished, in real time, since the kernel's own timers decide."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounts import Grid, within
from support.ports import free_ports
from support.vanishing import vanish
from torture.network import Proxy

from dfsfuse.net.health.slowness import GONE_S, SLOW_S

pytestmark = pytest.mark.programs

IDLE_S = GONE_S + 2.0


@contextlib.contextmanager
def proxied(grid: Grid) -> Iterator[list[Proxy]]:
    """Put a proxy in front of each server, and return a client config that uses the proxies."""
    with contextlib.ExitStack() as running:
        proxies = []
        before = grid.client_config
        config = before.read_text()
        for server, port in zip(grid.servers, free_ports(4), strict=True):
            proxy = Proxy(port, server.port)
            proxy.start()
            running.callback(proxy.close)
            proxies.append(proxy)
            config = config.replace(f"port: {server.port}", f"port: {port}")
        grid.client_config = before.with_name("through-proxies.yaml")
        grid.client_config.write_text(config)
        grid.client_config.chmod(0o600)
        running.callback(setattr, grid, "client_config", before)
        yield proxies


@pytest.mark.parametrize("is_idle", [False, True])
def test_a_mount_whose_servers_have_vanished_fails_after_ten_seconds_and_not_after_thirty(
    grid: Grid, is_idle: bool
) -> None:
    """The mount is idle: nothing was in flight, and the kernel finds out by itself."""
    with proxied(grid) as proxies:
        mount = grid.mount(f"vanished-{is_idle}")
        name = f"there-{is_idle}"
        (mount.path / name).write_bytes(b"x")
        for proxy in proxies:
            vanish(*proxy._sockets)
        if is_idle:
            time.sleep(IDLE_S)  # the test shows that this time counts
        begun = time.monotonic()
        with pytest.raises(OSError) as refused:
            within(2 * SLOW_S, "writing", lambda: _write_durably(mount.path / f"{name}-new"))
        took_s = time.monotonic() - begun
        print(f"refused after {took_s:.1f} s")
        assert refused.value.errno in (errno.EROFS, errno.EIO)
        assert took_s < (GONE_S if is_idle else SLOW_S - 5.0)
        mount.end()


def _write_durably(path: Path) -> None:
    path.mkdir()
    (path / "f").write_bytes(b"x")
