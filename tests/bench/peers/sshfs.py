"""sshfs with its own sshd, keys only: one server, one copy. The minimal cost of a mount over a network."""

from __future__ import annotations

from pathlib import Path

from bench.peers.peer import Peer, find_program
from support.mounts import is_mounted

PORT = 2222


class SshFs(Peer):
    """sshfs 3."""

    name = "sshfs"
    programs = ("sshfs", "sshd", "ssh-keygen")
    can_lose_a_server = False

    def start_servers(self) -> None:
        """See `Peer`."""
        (self.folder / "data").mkdir()
        Path("/run/sshd").mkdir(exist_ok=True)  # required by sshd
        for key in ("host_key", "user_key"):
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key)
        authorized = self.folder / "authorized_keys"
        authorized.write_text((self.folder / "user_key.pub").read_text())
        authorized.chmod(0o600)
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {PORT}\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {authorized}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
        )
        sshd = find_program("sshd")
        assert sshd is not None
        self.start("sshd.log", sshd, "-D", "-e", "-f", self.folder / "sshd_config")
        self.wait_for_port(PORT)

    def mount(self) -> None:
        """See `Peer`."""
        options = f"IdentityFile={self.folder}/user_key,IdentitiesOnly=yes,StrictHostKeyChecking=accept-new"
        options += f",UserKnownHostsFile={self.folder}/known_hosts"
        source = f"root@127.0.0.1:{self.folder}/data"
        self.run("sshfs", source, self.mountpoint, "-p", str(PORT), "-F", "/dev/null", "-o", options)
        self.wait_for(lambda: is_mounted(self.mountpoint), "it is mounted")
