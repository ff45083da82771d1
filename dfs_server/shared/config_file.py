"""Reads a YAML config file so that every mistake in it gets one clear sentence.

Knows YAML and where to look for config files, but no keys: `dfs_server.config` and the client's config describe theirs
with the helpers below. Every mistake is a `ConfigError` that names the file, the key, what was found and what was
expected; a value that may be a secret is never quoted. Unknown keys and keys given twice are refused: a misspelt key
that is silently ignored is worse than an error. No threads, no state.

    root = load(path)
    keys = mapping(root, At(path), required=("users",), optional=("grace_period_s",))
    grace_s = number(keys["grace_period_s"], At(path, "grace_period_s"), low=0)
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from dfs_server.shared import homes, ownership

MAX_FILE_BYTES = 1024 * 1024
ENVIRONMENT_VARIABLE = "DFS_CONFIG"
TRYOUT = Path("tryout")
"""Where `make run` keeps the config of its servers and its client."""
IN_WORKING_FOLDER = (TRYOUT, Path("conf"))

T = TypeVar("T")


class ConfigError(Exception):
    """A mistake in a config file, or no config file. The text is for the person who wrote the file."""


@dataclass(frozen=True)
class At:
    """A place in a config file: the file and the key, such as `servers, item 3: port` (empty: the whole file)."""

    file: Path
    key: str = ""

    def child(self, key: str | int) -> At:
        """The place of an item of the list, or of a key of the mapping, at this place."""
        if isinstance(key, int):
            return At(self.file, f"{self.key}, item {key + 1}")  # as people count
        between = ": " if self.key.rpartition(", item ")[2].isdigit() else "."
        return At(self.file, f"{self.key}{between}{key}" if self.key else key)

    def error(self, found: str, expected: str) -> ConfigError:
        """An error that says what was found here and what was expected."""
        where = f"{self.file}: {self.key}" if self.key else f"{self.file}"
        return ConfigError(f"{where}: found {found}; expected {expected}")


# ------------------------------------------------------------------ finding and reading the file


def find(explicit: Path | None, name: str) -> Path:
    """The config file to read: `explicit`, else $DFS_CONFIG, else ./tryout/`name` (which `make run` creates), else
    ./conf/`name`, else ~/.config/dfsfuse/`name`.

    $DFS_CONFIG may be the file, or a folder that holds it. Raises `ConfigError` if there is none, or if the first one
    found is in the working folder and another user may have put it there (`ownership`).
    """
    if explicit is not None:
        return _existing(explicit, "named by --config")
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    if from_environment:
        try:
            path = homes.expanded(from_environment)
        except OSError as error:
            raise ConfigError(f"{from_environment} (named by ${ENVIRONMENT_VARIABLE}): {error.strerror}") from error
        return _existing(path / name if path.is_dir() else path, f"named by ${ENVIRONMENT_VARIABLE}")
    own = homes.config_folder()
    candidates = [folder / name for folder in (*IN_WORKING_FOLDER, own) if folder is not None]
    for path in candidates:
        if os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises where access is denied)
            return path if path.is_absolute() else _trusted(path)
    *others, last = map(str, candidates)
    raise ConfigError(
        f"{name}: there is no such config file; looked for {', '.join(others)} and {last}. "
        f"Name one with --config or ${ENVIRONMENT_VARIABLE}."
    )


def _trusted(path: Path) -> Path:
    try:
        refusal = ownership.refusal(path)
    except OSError as error:
        refusal = f"{error.filename}: cannot be examined: {error.strerror}"
    if refusal is not None:
        raise ConfigError(refusal)
    return path


def _existing(path: Path, why: str) -> Path:
    if path.is_dir():
        raise ConfigError(f"{path} ({why}): found a folder; expected a config file")
    if not path.exists():
        raise ConfigError(f"{path} ({why}): there is no such config file")
    return path


def load(path: Path) -> object:
    """The contents of the YAML file, as plain values. Raises `ConfigError`, with the line if possible."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: the config file cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: found more than {MAX_FILE_BYTES} bytes; expected a config file")
    try:
        return yaml.load(data, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else f"{path}"
        problem = error.problem or error.context or ""
        if problem.startswith("the key "):  # our own message, from the loader below
            raise ConfigError(f"{where}: found {problem}; expected each key once") from error
        raise ConfigError(f"{where}: this is not valid YAML: {problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: this is not valid YAML: {reason}") from error


class _Loader(yaml.SafeLoader):
    """SafeLoader, except that a key given twice is an error instead of the last one taking effect."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# ------------------------------------------------------------------ checking what was read


def described(value: object) -> str:
    """A value as shown in an error message: short, and with its kind if that is not obvious."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true (yes/no value)" if value else "false (yes/no value)"
        case str():
            return f"the text {reprlib.repr(value)}"
        case int() | float():
            return f"the number {value}"
        case _:
            return _kind(value)


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "a yes/no value"
        case str():
            return "a text" if value else "an empty text"
        case int() | float():
            return "a number"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"keys and values ({len(value)})"
        case _:
            return f"a {type(value).__name__}"


def mapping(
    value: object, at: At, *, required: Collection[str] = (), optional: Collection[str] = ()
) -> dict[str, object]:
    """Check for keys and values, with all of `required` and no others but those and `optional`."""
    known = [*required, *optional]
    keys = any_mapping(value, at, f"the keys {listed(known)}")
    for key in keys:
        if key not in known:
            meant = difflib.get_close_matches(key.lower(), known, n=1)
            hint = f" (did you mean {meant[0]!r}?)" if meant else ""
            raise at.error(f"the unknown key {key!r}{hint}", f"one of {listed(known)}")
    for key in required:
        if key not in keys:
            raise at.child(key).error("nothing", f"the key {key!r}, which must be given")
    return keys


def any_mapping(value: object, at: At, expected: str) -> dict[str, object]:
    """Check for keys and values with any keys, each of which must be a text."""
    if not isinstance(value, dict):
        raise at.error(described(value), expected)
    for key in value:
        if not isinstance(key, str):
            raise at.error(f"{described(key)} as a key", 'a name (in quotes, if YAML takes it for another kind: "123")')
    return value


def sequence(value: object, at: At, expected: str) -> list[object]:
    """Check for a list."""
    if not isinstance(value, list):
        raise at.error(described(value), expected)
    return value


def text(value: object, at: At, expected: str, *, pattern: str | re.Pattern[str] = r"(?s).+") -> str:
    """Check for a text that `pattern` matches completely."""
    if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
        raise at.error(described(value), expected)
    return value


def secret(value: object, at: At, expected: str) -> str:
    """Check for a non-empty text. It never appears in an error message."""
    return secret_as(value, at, expected, str)


def secret_as(value: object, at: At, expected: str, convert: Callable[[str], T]) -> T:
    """Convert a non-empty text with `convert`, which may raise ValueError. The text never appears in an error
    message."""
    if not isinstance(value, str) or not value:
        quotes = " in quotes" if isinstance(value, int | float) else ""
        raise at.error(_kind(value), expected + quotes)
    try:
        return convert(value)
    except ValueError as error:
        raise at.error(f"an unusable text ({error})", expected) from None


def integer(value: object, at: At, *, low: int, high: int) -> int:
    """Check for a whole number, low <= number <= high."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise at.error(described(value), f"a whole number from {low} to {high}")
    return value


def number(value: object, at: At, *, low: float, high: float) -> float:
    """Check for a number, low <= number <= high."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise at.error(described(value), f"a number from {low:g} to {high:g}")
    return float(value)


def listed(names: Iterable[str]) -> str:
    """`a`, `b` and `c`, for a sentence."""
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1] if quoted else "none"
