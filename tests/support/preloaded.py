"""Builds the libraries that are loaded into processes by LD_PRELOAD (`*.c` in this folder)."""

from __future__ import annotations

import subprocess
from pathlib import Path

TIMEOUT_S = 160


def build(source: str, folder: Path) -> Path:
    """Build the library in `folder`, and return its path."""
    library = folder / source.replace(".c", ".so")
    path = Path(__file__).with_name(source)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", library, path, "-ldl"]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    return library
