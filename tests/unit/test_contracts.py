"""The import contracts in pyproject.toml cover every module."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


def contract(name: str) -> dict[str, Any]:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (found,) = (one for one in settings["tool"]["importlinter"]["contracts"] if one["name"].startswith(name))
    return found


def what_calls_itself_pure() -> set[str]:
    """The modules and packages whose docstrings say so; a package stands for itself only, not for its modules."""
    found = set()
    for file in (file for package in ("dfsfuse", "dfs_server") for file in (REPOSITORY / package).rglob("*.py")):
        if re.search(r"\bpure\b", ast.get_docstring(ast.parse(file.read_text())) or "", re.IGNORECASE):
            found.add(".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"))
    return {name for name in found if not any(name.startswith(f"{package}.") for package in found)}


def test_what_calls_itself_pure_is_checked_and_nothing_else() -> None:
    named = contract("Pure logic")["source_modules"]
    assert named == sorted(what_calls_itself_pure())
