"""The system under torture: four servers, each with its own disk and network, two mounts, `dfc`; and ways to harm it.

As root, a server's disk is a small tmpfs, which can be filled. Everything is ended, unmounted and removed when the
`with` block is left. It decides nothing: the nemesis chooses faults and times.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from support.mounts import Mount, environment, eventually, program
from support.pieces_on_disk import large_piece_files
from support.servers import USERS, ServerProcess, start_all, write_server_config

from . import programs
from .network import Network, network

SERVERS: Final = 4
USER: Final = "alice"
DISK_MIB: Final = 1024
LEFT_BYTES: Final = 4 * 1024 * 1024
"""Free space on a full disk. A server keeps 64 MiB in reserve, so it refuses pieces long before."""
SERVER_CONFIG: Final = "grace_period_s: 30\n"
COMMAND_S: Final = 240.0
_NEWS_OF_SERVERS: Final = re.compile(r"(DFS\d) \(\S+\) (does not answer|answers again)")


class TorturedServer(ServerProcess):
    """A server in its network, run by the real or a broken program."""

    def __init__(self, root: Path, config: Path, number: int, way: Network, start_with: Sequence[str]) -> None:
        host, port = way.listens_on(number)
        super().__init__(root, config, port)
        self.number = number
        self._command = way.command(
            number, [*start_with, str(root), str(port), "--host", host, "--config", str(config), "-v"]
        )

    def command_line(self) -> list[str]:
        return self._command


class Field(contextlib.ExitStack):
    """See the module. `field.servers[1]` is DFS1. A context manager."""

    def __init__(self, folder: Path, *, server: Sequence[str] = (), mount: Sequence[str] = ()) -> None:
        """`server` and `mount` are programs to run instead of the real ones."""
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.client_config = folder / "dfc.yaml"
        self.servers: dict[int, TorturedServer] = {}
        self.mounts: dict[str, TorturedMount] = {}
        self.has_disks = os.geteuid() == 0
        self._server_program = list(server) or programs.command("server")
        self._mount_program = list(mount)

    def __enter__(self) -> Field:
        with contextlib.ExitStack() as made:
            self.network = made.enter_context(network(SERVERS))
            config = write_server_config(self.folder, SERVER_CONFIG)
            for number in range(1, SERVERS + 1):
                disk = self.folder / f"disk{number}"
                disk.mkdir()
                if self.has_disks:
                    _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk))
                    made.callback(_run, "umount", "-l", str(disk))
                server = TorturedServer(disk / f"DFS{number}", config, number, self.network, self._server_program)
                server.stderr_path = self.folder / f"DFS{number}.stderr"
                made.callback(server.close)
                self.servers[number] = server
            start_all(list(self.servers.values()))
            self._write_client_config()
            made.callback(self._end_mounts)
            self.push(made.pop_all())
        return self

    def _write_client_config(self) -> None:
        lines = ["servers:"]
        for number, server in self.servers.items():
            host, port = self.network.address(number)
            lines.append(f"  - {{name: {server.name}, host: {host}, port: {port}}}")
        lines += [f"username: {USER}", f"password: {USERS[USER]}", ""]
        self.client_config.write_text("\n".join(lines))
        self.client_config.chmod(0o600)

    def _end_mounts(self) -> None:
        for mount in self.mounts.values():
            mount.end()

    # ------------------------------------------------------------------ clients

    def mount(self, name: str, options: Sequence[str] = ()) -> TorturedMount:
        """Mount in a folder of this name."""
        mount = TorturedMount(self, self.folder / name, options, self._mount_program)
        self.mounts[name] = mount
        mount.mount()
        return mount

    def dfc(self, *arguments: str | Path, timeout_s: float = COMMAND_S) -> subprocess.CompletedProcess[bytes]:
        """Run one `dfc` command to its end."""
        command = [*program("dfc"), "--config", str(self.client_config), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, timeout=timeout_s, env=environment(), check=False, cwd=self.folder
        )

    def roots(self) -> dict[int, Path]:
        """The servers' folders."""
        return {number: server.root for number, server in self.servers.items()}

    # ------------------------------------------------------------------ harm

    def empty_disk(self, number: int) -> None:
        """Replace the disk of a server that is not running by an empty one."""
        self.servers[number].kill()
        shutil.rmtree(self.servers[number].root)
        (self.servers[number].root.parent / programs.RECORD).unlink(missing_ok=True)

    def cut_power(self) -> None:
        """End all servers at once, and lose what they have not fsynced."""
        for server in self.servers.values():
            server.kill()
        for server in self.servers.values():
            programs.power_cut(server.root)

    def piece_files(self, number: int) -> list[Path]:
        """Return a server's files of large pieces."""
        return large_piece_files(self.servers[number].root, USER)

    def fill_disk(self, number: int) -> None:
        """Fill the server's disk."""
        disk = self.servers[number].root.parent
        with (disk / "filler").open("wb") as file:
            size = 0
            while (room := shutil.disk_usage(disk).free - LEFT_BYTES) > 0:
                part = max(1, room // 2)  # the server uses room meanwhile
                os.posix_fallocate(file.fileno(), size, part)
                size += part

    def free_disk(self, number: int) -> None:
        """Undo `fill_disk`."""
        (self.servers[number].root.parent / "filler").unlink()


class TorturedMount(Mount):
    """A mount, run by the real or a broken program."""

    def __init__(self, field: Field, mountpoint: Path, options: Sequence[str], start_with: Sequence[str]) -> None:
        super().__init__(field, mountpoint, options)  # type: ignore[arg-type] (of a grid it uses the config only)
        if start_with:
            self._command = [*start_with, *self._command[len(program("dfsmount")) :]]
        self._log_bytes_before = 0

    def mount(self) -> None:
        self._log_bytes_before = self.log.stat().st_size if self.log.exists() else 0
        super().mount()

    def misses(self) -> set[str]:
        """The servers that it has reported as not answering since it began, and not as answering again."""
        return missed(self.log.read_bytes()[self._log_bytes_before :].decode(errors="replace"))


def missed(log: str) -> set[str]:
    """The servers that do not answer at the end of this log of a mount."""
    missing: set[str] = set()
    for server, what in _NEWS_OF_SERVERS.findall(log):
        if what == "answers again":
            missing.discard(server)
        else:
            missing.add(server)
    return missing


def damage(path: Path, how: str, other: Path | None, random: random.Random) -> bool:
    """Damage a piece's file: `flip` a bit, `cut` it, `remove` it, or `swap` it with another. Returns false if it is
    gone."""
    try:
        size = path.stat().st_size
        match how:
            case "flip":
                with path.open("r+b") as file:
                    at = random.randrange(size)
                    file.seek(at)
                    byte = file.read(1)[0]
                    file.seek(at)
                    file.write(bytes([byte ^ 1 << random.randrange(8)]))
            case "cut":
                os.truncate(path, random.randrange(size))
            case "remove":
                path.unlink()
            case "swap":
                assert other is not None
                _exchange(path, other)
            case _:
                raise ValueError(how)
    except FileNotFoundError:
        return False
    return True


def _exchange(one: Path, two: Path) -> None:
    aside = one.with_name(one.name + ".aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def wait_until(condition, what: str, within_s: float) -> None:
    """Poll seldom, since each check starts a process."""
    pause = min(1.0, within_s / 20)

    def slowly() -> bool:
        if condition():
            return True
        time.sleep(pause)
        return False

    eventually(slowly, what, within_s)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_S)
