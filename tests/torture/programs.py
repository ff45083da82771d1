"""The programs that the torture runs: `python programs.py WHAT ARGUMENTS...`. Some are broken on purpose.

- `server`: `dfs-server`, which also records what it has fsynced, so that a power cut can be simulated (`power_cut`).
- `server-without-fsync`: the same, but fsync does nothing.
- `mount-without-checks`: `dfsmount` that trusts every byte a server sends.
- `mount-without-handoff`: `dfsmount` that uses the ring's homes only.

The checker must detect each of the broken ones. SQLite does its own fsyncs, which this does not see.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve()
RECORD: Final = "fsynced"
"""A file beside a server's folder, with a line for each durable file, and for each durable name in a folder."""


def command(what: str) -> list[str]:
    """Return the beginning of the command line."""
    return [sys.executable, str(HERE), what]


def power_cut(root: Path) -> int:
    """Change the folder of an ended server as if the power had been cut while it ran: large pieces that were not
    fsynced are empty, and those whose folder was not are gone. Returns their number."""
    record = root.parent / RECORD
    lines = set(record.read_text().splitlines()) if record.exists() else set()
    lost = 0
    for path in root.glob("*/pieces/??/*"):
        inode = path.stat().st_ino
        if f"name {path.parent.name}/{path.name} {inode}" not in lines:
            path.unlink()
            lost += 1
        elif f"file {inode}" not in lines:
            os.truncate(path, 0)
            lost += 1
    return lost


def _server(record_fsyncs: bool) -> None:
    from dfs_server.cli import main

    root = Path(sys.argv[1])
    real = os.fsync
    record = os.open(root.parent / RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        lines = [f"file {status.st_ino}"]
        if stat.S_ISDIR(status.st_mode):
            folder = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
            lines = []
            for name in os.listdir(descriptor):
                with contextlib.suppress(FileNotFoundError):
                    inode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_ino
                    lines.append(f"name {Path(folder).name}/{name} {inode}")
        real(descriptor)
        os.write(record, "".join(f"{line}\n" for line in lines).encode())

    os.fsync = os.fdatasync = fsync if record_fsyncs else lambda descriptor: None
    main()


def _mount(break_it: Callable[[], None]) -> None:
    from dfsfuse.cli.mount.dfsmount import main

    break_it()
    sys.argv[0] = "dfsmount"
    sys.exit(main())


def _without_checks() -> None:
    from dfsfuse.data import piece_check

    assert callable(piece_check.blocks_match)
    piece_check.blocks_match = lambda *anything: True


def _without_handoff() -> None:
    from dfsfuse.data import upload

    assert callable(upload.place)
    assert callable(upload._with_replacements)
    real = upload.place
    upload.place = lambda rotation, usable: real(rotation, (1, 2, 3, 4))
    upload._with_replacements = lambda homes, *others: homes


PROGRAMS: Final[dict[str, Callable[[], None]]] = {
    "server": lambda: _server(record_fsyncs=True),
    "server-without-fsync": lambda: _server(record_fsyncs=False),
    "mount-without-checks": lambda: _mount(_without_checks),
    "mount-without-handoff": lambda: _mount(_without_handoff),
}

if __name__ == "__main__":
    sys.path[0] = str(HERE.parents[2])
    what = sys.argv.pop(1)
    PROGRAMS[what]()
