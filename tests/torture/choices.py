"""A writer's next operation, drawn from its seed and the content of its folder. Pure.

Only legal operations are drawn, so that only faults can make them fail. The number of names and bytes in a folder is
bounded, so that a long run does not keep growing.
"""

from __future__ import annotations

import random as random_numbers
from typing import Final

from .model import FILE, FOLDER, Operation, State

NAMES_MAX: Final = 24
BYTES_MAX: Final = 24 * 1024 * 1024
FILE_MAX_BYTES: Final = 9 * 1024 * 1024

CHANGES: Final = {
    "create": 14,
    "write": 16,
    "append": 10,
    "truncate": 5,
    "rename": 8,
    "replace": 8,
    "link": 5,
    "unlink": 8,
    "mkdir": 4,
    "rmdir": 2,
    "symlink": 2,
}
LOOKS: Final = {"read": 16, "range": 8, "list": 6, "sync": 3, "sync folder": 3}
"""Verbs that change nothing, with their weights."""

SIZES: Final = ((5, 0, 0), (20, 1, 200), (35, 201, 32_768), (22, 32_769, 160_000), (15, 200_000, 1_500_000))
LARGE: Final = (3, 4_000_000, FILE_MAX_BYTES)
"""(weight, least bytes, most bytes) of files: empty, inside a batch, pieces in files, and several regions (LARGE)."""


class Choices:
    """A writer's choices. Numbers of files and versions are never used twice."""

    def __init__(self, seed: str, first_number: int) -> None:
        self.random = random_numbers.Random(seed)
        self._number = first_number
        self._version = 0
        self._name = 0

    def verb(self) -> str:
        """Draw a verb: one of CHANGES or LOOKS."""
        all_verbs = CHANGES | LOOKS
        return self.random.choices(list(all_verbs), list(all_verbs.values()))[0]

    def size(self) -> int:
        """Draw a number of bytes to write."""
        weights = [weight for weight, _, _ in (*SIZES, LARGE)]
        _, least, most = self.random.choices((*SIZES, LARGE), weights)[0]
        return self.random.randint(least, most)

    def file(self, state: State) -> str:
        """Draw a file's name; empty if there are no files."""
        return self._one(state, FILE)

    def _one(self, state: State, kind: str) -> str:
        paths = sorted(path for path, entry in state.names.items() if entry.kind == kind)
        return self.random.choice(paths) if paths else ""

    def _new_name(self, state: State) -> str:
        self._name += 1
        folder = self.random.choice(["", self._one(state, FOLDER)])
        return f"{folder}/n{self._name}" if folder else f"n{self._name}"

    def operation(self, verb: str, state: State) -> Operation | None:
        """Draw an operation of this kind; None if there is nothing to apply it to."""
        is_full = len(state.names) >= NAMES_MAX or sum(map(len, state.contents.values())) > BYTES_MAX
        if is_full and verb in ("create", "mkdir", "link", "symlink", "write", "append"):
            verb = "unlink"
        file = self.file(state)
        if verb == "create":
            return self.creation(self._new_name(state))
        if verb in ("mkdir", "symlink"):
            return Operation(verb, self._new_name(state), "where it leads" if verb == "symlink" else "")
        if verb == "rmdir":
            return self._removal_of_a_folder(state)
        if not file:
            return None
        entry = state.names[file]
        length = len(state.contents[entry.number])
        if verb in ("write", "append"):
            return self._write(verb, file, entry.number, length)
        if verb == "truncate":
            return Operation(verb, file, size=self.random.randint(0, min(length + 5_000, FILE_MAX_BYTES)))
        if verb == "link":
            return Operation(verb, file, self._new_name(state))
        if verb == "rename":
            return self._rename(state, file)
        assert verb == "unlink", verb
        names = sorted(path for path, entry in state.names.items() if entry.kind != FOLDER)
        return Operation("unlink", self.random.choice(names))

    def creation(self, path: str) -> Operation:
        """Create a file of a drawn size there."""
        self._number += 1
        self._version += 1
        return Operation("create", path, number=self._number, version=self._version, size=self.size())

    def _write(self, verb: str, path: str, number: int, length: int) -> Operation:
        if length >= FILE_MAX_BYTES:
            return Operation("truncate", path, size=0)
        self._version += 1
        offset = length
        if verb == "write":
            offset = self.random.randint(0, length + (5_000 if self.random.random() < 0.1 else 0))
        size = max(1, min(self.size(), FILE_MAX_BYTES - offset))
        return Operation(verb, path, number=number, version=self._version, offset=offset, size=size)

    def _rename(self, state: State, file: str) -> Operation | None:
        folder = self._one(state, FOLDER)
        if folder and self.random.random() < 0.2:
            self._name += 1
            parent = folder.rpartition("/")[0]
            return Operation("rename", folder, f"{parent}/n{self._name}" if parent else f"n{self._name}")
        target = self.file(state) if self.random.random() < 0.5 else self._new_name(state)
        if target in state.names and state.names[target].number == state.names[file].number:
            return None  # two names of one file: POSIX says that nothing happens
        return Operation("rename", file, target)

    def _removal_of_a_folder(self, state: State) -> Operation | None:
        empty = [
            path
            for path, entry in sorted(state.names.items())
            if entry.kind == FOLDER and not any(name.startswith(path + "/") for name in state.names)
        ]
        return Operation("rmdir", self.random.choice(empty)) if empty else None
