"""Runs scripts that use mount(8) with the helpers of `make install-mount-helper`, without touching this machine: in a
mount namespace of their own (`support.unshared`), whose /usr/sbin is a copy made of links.

The mounts disappear with the namespace's last process.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from support import unshared
from support.mounts import environment
from support.servers import REPOSITORY

TIMEOUT_S = 90.0

PRIVATE = """
set -euo pipefail
mkdir sbin mnt
mount --bind /usr/sbin sbin
mount -t tmpfs none /usr/sbin
ln -s "$PWD"/sbin/* /usr/sbin/
"""
INSTALL = """
make -s -C "$PROJECT" install-mount-helper
"""


def run_privately(folder: Path, script: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run a script as root in a mount namespace of its own, in `folder`."""
    project = folder / "project"  # so that the links lead to this source tree
    (project / ".venv/bin").mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", project)
    shutil.copy(REPOSITORY / "pyproject.toml", project)
    (project / ".venv/installed").touch()
    shutil.copytree(REPOSITORY / "docs/man", project / "docs/man")
    for name in ("mount", "umount"):
        helper = project / f".venv/bin/{name}.dfs"
        helper.write_text(
            f"#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(REPOSITORY))}\n"
            f'exec {shlex.quote(sys.executable)} -m dfsfuse.cli.mount.{name}_helper "$@"\n'
        )
        helper.chmod(0o755)
    return subprocess.run(
        unshared.command("bash", "-c", PRIVATE + script),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment()
        | {
            "PROJECT": str(project),
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "MAN": str(folder / "man"),
        },
        timeout=timeout_s,
        check=False,
    )
