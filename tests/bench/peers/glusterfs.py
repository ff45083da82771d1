"""GlusterFS: four bricks as two replica pairs. Any one brick may fail."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from bench.peers.peer import SERVERS, Peer, PeerError

HOST = "10.99.0.1"
"""A brick's host must not be 127.0.0.1."""


class GlusterFs(Peer):
    """GlusterFS, distributed and replicated."""

    name = "GlusterFS"
    programs = ("glusterd", "gluster", "glusterfs")

    def start_servers(self) -> None:
        """See `Peer`."""
        self.run("ip", "address", "add", f"{HOST}/32", "dev", "lo")
        bricks = [self.folder / f"brick{number}" for number in SERVERS]
        for folder in (self.folder / "work", self.folder / "run", *bricks):
            folder.mkdir()
        for folder in (Path("/var/log/glusterfs"), Path("/var/lib/glusterd")):
            folder.mkdir(parents=True, exist_ok=True)
        volume = self.folder / "glusterd.vol"
        volume.write_text(
            "volume management\n    type mgmt/glusterd\n"
            f"    option working-directory {self.folder}/work\n    option run-directory {self.folder}/run\n"
            f"    option glusterd-sockfile {self._socket}\n    option transport-type socket\n"
            "    option transport.socket.listen-port 24007\n    option ping-timeout 0\nend-volume\n"
        )
        log = self.folder / "glusterd.log"
        self.run("glusterd", "-f", volume, "-p", self.folder / "glusterd.pid", "-l", log)
        self.wait_for(lambda: self.succeeds(*self._gluster, "volume", "list"), "glusterd answers")
        where = [f"{HOST}:{brick}" for brick in bricks]
        self.run(*self._gluster, "volume", "create", "bench", "replica", "2", *where, "force")
        self.run(*self._gluster, "volume", "start", "bench")

    def mount(self) -> None:
        """See `Peer`."""
        log = self.folder / "client.log"
        self.run("glusterfs", f"--volfile-server={HOST}", "--volfile-id=bench", f"--log-file={log}", self.mountpoint)
        self.wait_for_mount()
        self.wait_until_writable()

    def stop_a_server(self) -> None:
        """See `Peer`."""
        told = self.run(*self._gluster, "volume", "status", "bench", f"{HOST}:{self.folder}/brick4", "detail")
        pid = re.search(r"^Pid\s*:\s*(\d+)", told, re.MULTILINE)
        if pid is None:
            raise PeerError(f"GlusterFS does not tell its brick's pid: {told[-300:]}")
        os.kill(int(pid[1]), signal.SIGKILL)

    @property
    def _socket(self) -> Path:
        return self.folder / "glusterd.socket"

    @property
    def _gluster(self) -> tuple[str, ...]:
        return ("gluster", "--mode=script", f"--glusterd-sock={self._socket}")
