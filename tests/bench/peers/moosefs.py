"""MooseFS: one master, four chunk servers, goal 2. Any one chunk server may fail; the master may not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bench.peers.peer import SERVERS, Peer

MASTER = "10.99.0.5"
"""A chunk server refuses 127.0.0.1."""
PORT = 9422
EMPTY_METADATA = Path("/var/lib/mfs/metadata.mfs.empty")
COMMON = "WORKING_USER = root\nWORKING_GROUP = root\nNICE_LEVEL = 0\n"


class MooseFs(Peer):
    """MooseFS 3."""

    name = "MooseFS"
    programs = ("mfsmaster", "mfschunkserver", "mfsmount", "mfssetgoal")

    def start_servers(self) -> None:
        """See `Peer`."""
        for number in (*SERVERS, 5):
            self.run("ip", "address", "add", f"10.99.0.{number}/32", "dev", "lo")
        master = self.folder / "master"
        master.mkdir()
        empty = EMPTY_METADATA.read_bytes() if EMPTY_METADATA.exists() else b"MFSM NEW"
        (master / "metadata.mfs").write_bytes(empty)
        exports = self.folder / "mfsexports.cfg"
        exports.write_text("10.99.0.0/24 / rw,alldirs,maproot=0\n")
        listen = "".join(f"{who}_LISTEN_HOST = {MASTER}\n" for who in ("MATOML", "MATOCS", "MATOCL"))
        where = f"DATA_PATH = {master}\nEXPORTS_FILENAME = {exports}\n{listen}"
        self._start("mfsmaster", where + "OPERATIONS_DELAY_INIT = 0\n")
        for number in SERVERS:
            folder = self._folder_of(number)
            (folder / "data").mkdir(parents=True)
            disks = folder / "mfshdd.cfg"
            disks.write_text(f"{folder / 'data'}\n")
            self._start(
                "mfschunkserver",
                f"DATA_PATH = {folder}\nHDD_CONF_FILENAME = {disks}\nMASTER_HOST = {MASTER}\n"
                f"BIND_HOST = 10.99.0.{number}\nCSSERV_LISTEN_HOST = 10.99.0.{number}\nCSSERV_LISTEN_PORT = {PORT}\n",
                number,
            )

    def mount(self) -> None:
        """See `Peer`."""
        self.run("mfsmount", self.mountpoint, "-H", MASTER, "-o", "mfsnice=0")
        self.wait_for_mount()
        self.run("mfssetgoal", "-r", "2", self.mountpoint)
        self.wait_until_writable()

    def stop_a_server(self) -> None:
        """See `Peer`."""
        os.kill(int((self._folder_of(4) / ".mfschunkserver.lock").read_text()), signal.SIGKILL)

    def _start(self, program: str, config: str, number: int = 0) -> None:
        file = self.folder / f"{program}{number}.cfg"
        file.write_text(COMMON + config)
        self.run(program, "-c", file, "start")

    def _folder_of(self, number: int) -> Path:
        return self.folder / f"chunks{number}"
