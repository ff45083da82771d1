"""The contracts in pyproject.toml cover every module that they should."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

REPOSITORY = Path(__file__).resolve().parents[2]
HARMLESS: Final = {"dfsfuse.errors", "dfsfuse.namespace.ops.inodes"}
"""Modules whose ignored imports leave them pure: what they import is a table, or never changes."""


def contract(name: str) -> dict[str, Any]:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (found,) = (one for one in settings["tool"]["importlinter"]["contracts"] if one["name"].startswith(name))
    return found


def importers(expressions: list[str]) -> set[str]:
    return {expression.partition(" -> ")[0] for expression in expressions}


def is_within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def modules() -> Iterator[tuple[str, Path]]:
    for file in (file for package in ("dfsfuse", "dfs_server") for file in (REPOSITORY / package).rglob("*.py")):
        yield ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"), file


def what_calls_itself_pure() -> set[str]:
    """The modules and packages whose docstrings say so."""
    return {
        name
        for name, file in modules()
        if re.search(r"\bpure\b", ast.get_docstring(ast.parse(file.read_text())) or "", re.IGNORECASE)
    }


def test_what_calls_itself_pure_is_checked_and_nothing_else() -> None:
    named = contract("Pure logic")["source_modules"]
    packages = {name for name in named if (REPOSITORY / name.replace(".", "/")).is_dir()}
    pure = what_calls_itself_pure()
    singles = {module for module in pure if not is_within(module, packages)}
    assert named == [*sorted(packages), *sorted(singles)]


def test_what_is_exempt_in_a_pure_package_does_not_call_itself_pure_and_is_kept_from_the_others() -> None:
    exempt = importers(contract("Pure logic")["ignore_imports"]) - HARMLESS
    assert not exempt & what_calls_itself_pure()
    assert exempt == set(contract("What is exempt")["forbidden_modules"])
