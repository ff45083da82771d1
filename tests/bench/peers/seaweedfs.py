"""SeaweedFS: four volume servers with replication 001 (two copies), one master, one filer with leveldb, `weed mount`.

Any one volume server may fail; the master and the filer may not.
"""

from __future__ import annotations

import os
import shutil
import signal

from bench.peers.peer import SERVERS, Peer

MASTER = 9333
FILER = 8888
LOCAL = ("-ip=127.0.0.1", "-ip.bind=127.0.0.1")


class SeaweedServers(Peer):
    """The servers, without a mount."""

    filer_options: tuple[str, ...] = ()

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._volume_servers: list[int] = []

    def start_servers(self) -> None:
        """See `Peer`."""
        for name in ("master", "filer", *(f"volume{number}" for number in SERVERS)):
            (self.folder / name).mkdir()
        (self.folder / "filer.toml").write_text(f'[leveldb2]\nenabled = true\ndir = "{self.folder}/filer/db"\n')
        where = (*LOCAL, f"-port={MASTER}", f"-mdir={self.folder}/master")
        limits = ("-defaultReplication=001", "-volumeSizeLimitMB=1024", "-telemetry=false")
        self.start("master.log", "weed", "master", *where, *limits)
        self.wait_for_port(MASTER)
        for number in SERVERS:
            where = (*LOCAL, f"-port={8080 + number}", f"-dir={self.folder}/volume{number}")
            limits = ("-max=40", f"-master=127.0.0.1:{MASTER}")
            self._volume_servers.append(self.start(f"volume{number}.log", "weed", "volume", *where, *limits))
        for number in SERVERS:
            self.wait_for_port(8080 + number)
        where = (*LOCAL, f"-port={FILER}", f"-master=127.0.0.1:{MASTER}", "-defaultReplicaPlacement=001")
        self.start("filer.log", "weed", "filer", *where, *self.filer_options)
        self.wait_for_port(FILER)

    def stop_a_server(self) -> None:
        """See `Peer`."""
        os.kill(self._volume_servers[-1], signal.SIGKILL)


class SeaweedFs(SeaweedServers):
    """SeaweedFS with its own mount."""

    name = "SeaweedFS"
    programs = ("weed",)

    def mount(self) -> None:
        """See `Peer`."""
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        where = (f"-filer=127.0.0.1:{FILER}", f"-dir={self.mountpoint}", f"-cacheDir={cache}")
        self.start("mount.log", "weed", "mount", *where, "-replication=001", "-allowOthers", "-defaultPermissions")
        self.wait_for_mount()
        self.wait_until_writable()
