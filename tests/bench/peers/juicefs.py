"""JuiceFS: metadata in one Redis that fsyncs each second, data in a SeaweedFS with two copies, by S3.

Any one volume server may fail; Redis, the master and the filer may not.
"""

from __future__ import annotations

import json
import shutil

from bench.peers.seaweedfs import SeaweedServers

REDIS = 6379
S3 = 8333
KEYS = ("bench", "bench-secret")
METADATA = f"redis://127.0.0.1:{REDIS}/1"


class JuiceFs(SeaweedServers):
    """JuiceFS 1."""

    name = "JuiceFS"
    programs = ("juicefs", "weed", "redis-server")

    def start_servers(self) -> None:
        """See `Peer`."""
        credentials = {"accessKey": KEYS[0], "secretKey": KEYS[1]}
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        users = {"identities": [{"name": "bench", "credentials": [credentials], "actions": actions}]}
        (self.folder / "s3.json").write_text(json.dumps(users))
        self.filer_options = (
            "-s3",
            f"-s3.port={S3}",
            f"-s3.config={self.folder}/s3.json",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        )
        (self.folder / "redis").mkdir()
        where = ("--bind", "127.0.0.1", "--port", str(REDIS), "--dir", str(self.folder / "redis"))
        self.start("redis.log", "redis-server", *where, "--appendonly", "yes", "--save", "", "--daemonize", "no")
        super().start_servers()
        self.wait_for_port(S3)
        self.wait_for_port(REDIS)
        bucket = ("--storage", "s3", "--bucket", f"http://127.0.0.1:{S3}/bench")
        keys = ("--access-key", KEYS[0], "--secret-key", KEYS[1], "--trash-days", "0")
        command = ("juicefs", "format", "--no-update", *bucket, *keys, METADATA, "bench")
        self.wait_for(lambda: self.succeeds(*command), "its bucket is formatted")

    def mount(self) -> None:
        """See `Peer`."""
        cache = self.folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        options = ("--no-usage-report", "--cache-dir", str(cache), "-o", "allow_other")
        self.run("juicefs", "mount", "--background", *options, METADATA, self.mountpoint)
        self.wait_for_mount()
        self.wait_until_writable()
