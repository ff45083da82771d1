"""A virtual environment in the mount: created by venv, with a package installed and uninstalled by pip, without
network. And this project itself, installed by pip into another one."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Mount
from support.programs import run
from support.servers import REPOSITORY

pytestmark = [pytest.mark.programs, pytest.mark.timeout(400)]

DEADLINE_S: Final = 180.0
MODULES: Final = 100
INFO: Final = "parts-1.0.dist-info"


def test_pip_install_into_a_venv(root: Path, mount: Mount, tmp_path: Path) -> None:
    make_wheel(tmp_path)
    python = root / "venv/bin/python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--isolated")
    run(sys.executable, "-m", "venv", root / "venv", deadline_s=DEADLINE_S)
    run(*pip, "install", "--no-index", "--find-links", tmp_path, "parts", deadline_s=DEADLINE_S)
    mount.remount()
    assert run(root / "venv/bin/parts") == f"{sum(range(MODULES))}\n"
    run(*pip, "check", deadline_s=DEADLINE_S)
    assert "parts==1.0" in run(*pip, "freeze", deadline_s=DEADLINE_S)
    (packages,) = (root / "venv/lib").glob("python*/site-packages")
    for path in (packages / "parts").glob("*.py"):
        assert path.read_text() == source(path.stem), path
    run(python, "-m", "compileall", "-q", "-f", "-j", "2", packages / "pip", deadline_s=DEADLINE_S)
    run(*pip, "uninstall", "-y", "parts", deadline_s=DEADLINE_S)
    assert not list(packages.glob("parts*")) and not (root / "venv/bin/parts").exists()


def test_pip_install_of_this_project_leaves_nothing_in_the_tree(tmp_path: Path) -> None:
    """This is not in the mount, and needs a package registry, as `make venv` does."""
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", REPOSITORY, clone, deadline_s=DEADLINE_S)
    run(sys.executable, "-m", "venv", tmp_path / "venv", deadline_s=DEADLINE_S)
    run(tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", clone, deadline_s=DEADLINE_S)
    assert run("git", "-C", clone, "status", "--porcelain", "--ignored") == ""
    for program in ("dfc", "dfsmount", "dfs-server"):
        assert program in run(tmp_path / "venv/bin" / program, "--version")


def source(module: str) -> str:
    if module == "__init__":
        return "\n".join(
            [f"from . import part{number}" for number in range(MODULES)]
            + [f"PARTS = [{', '.join(f'part{number}.VALUE' for number in range(MODULES))}]"]
            + ["def main():", "    print(sum(PARTS))", ""]
        )
    return f"VALUE = {module.removeprefix('part')}\n"


def make_wheel(folder: Path) -> None:
    """Build a pure Python package with many modules and one command by hand."""
    files = {f"parts/{module}.py": source(module) for module in ["__init__", *(f"part{n}" for n in range(MODULES))]}
    files[f"{INFO}/METADATA"] = "Metadata-Version: 2.1\nName: parts\nVersion: 1.0\n"
    files[f"{INFO}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{INFO}/entry_points.txt"] = "[console_scripts]\nparts = parts:main\n"
    record = "".join(f"{name},sha256={digest(text)},{len(text)}\n" for name, text in files.items())
    files[f"{INFO}/RECORD"] = f"{record}{INFO}/RECORD,,\n"
    with zipfile.ZipFile(folder / "parts-1.0-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
