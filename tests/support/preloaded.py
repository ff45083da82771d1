"""Builds the layers that go under a process with LD_PRELOAD (`*.c` in this folder)."""

from __future__ import annotations

import subprocess
from pathlib import Path

TIMEOUT_S = 160


def build(source: str, folder: Path) -> Path:
    """The library, in `folder`."""
    library = folder / source.replace(".c", ".so")
    path = Path(__file__).with_name(source)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", library, path, "-ldl"]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    return library
