"""What a writer's folder may look like after what was acknowledged. Pure.

A `State` is a whole tree: names, and the contents of its files by their numbers (two names with one number are hard
links). `apply` applies an operation to it. A `Journal` holds the states of the folder since its last barrier (a
`close()` or `fsync()` that returned): the last one is the truth; if the mount was killed meanwhile, it may be any of
them, since a crash leaves a prefix. An operation that failed may have happened: entirely or not for names, chunk by
chunk for bytes (`Mixture`).

It knows nothing about mounts, servers, clocks or threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from . import contents

CHUNK_BYTES: Final = 4096
REGION_BYTES: Final = 4 * 1024 * 1024

FOLDER: Final = "folder"
FILE: Final = "file"
SYMLINK: Final = "symlink"


@dataclass(frozen=True)
class Entry:
    """What a name refers to: a folder, a symlink with its target, or a file by its number."""

    kind: str
    number: int = 0
    target: str = ""


@dataclass(frozen=True)
class State:
    """A complete tree. Paths are relative to the writer's folder, with slashes."""

    names: Mapping[str, Entry] = field(default_factory=dict)
    contents: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """`verb` is one of create, write, append, truncate, rename, link, unlink, mkdir, rmdir, symlink.

    `number` and `version` determine the bytes written; `other` is the second name of rename, link and symlink.
    """

    verb: str
    path: str
    other: str = ""
    number: int = 0
    version: int = 0
    offset: int = 0
    size: int = 0

    def data(self) -> bytes:
        """The bytes that it writes."""
        return contents.make(self.number, self.version, self.offset, self.size)

    def __str__(self) -> str:
        text = f"{self.verb} {self.path}" + (f" {self.other}" if self.other else "")
        if self.verb in ("create", "write", "append"):
            return f"{text} (file {self.number}, version {self.version}, {self.size} bytes at {self.offset})"
        return f"{text} to {self.size} bytes" if self.verb == "truncate" else text


def apply(state: State, operation: Operation) -> State:
    """Return the tree after a legal operation."""
    names, held = dict(state.names), dict(state.contents)
    path, other = operation.path, operation.other
    match operation.verb:
        case "create":
            assert path not in names
            names[path], held[operation.number] = Entry(FILE, operation.number), operation.data()
        case "write" | "append":
            number = names[path].number
            held[number] = _laid(held[number], operation.offset, operation.data())
        case "truncate":
            number = names[path].number
            held[number] = held[number][: operation.size].ljust(operation.size, b"\0")
        case "rename":
            for old in [name for name in names if _is_at_or_below(name, path)]:
                names[other + old[len(path) :]] = names.pop(old)
        case "link":
            names[other] = names[path]
        case "unlink" | "rmdir":
            del names[path]
        case "mkdir":
            names[path] = Entry(FOLDER)
        case "symlink":
            names[path] = Entry(SYMLINK, target=other)
        case _:
            raise ValueError(operation.verb)
    used = {entry.number for entry in names.values()}
    return State(names, {number: data for number, data in held.items() if number in used})


def _laid(old: bytes, offset: int, data: bytes) -> bytes:
    return old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]


def _is_at_or_below(name: str, path: str) -> bool:
    return name == path or name.startswith(path + "/")


@dataclass(frozen=True)
class Mixture:
    """A file's bytes while a write is in doubt: each chunk equals that of one of the candidates."""

    candidates: tuple[bytes, ...]
    cuts: tuple[int, ...] = ()

    def problem(self, found: bytes) -> str:
        """Return what is wrong with what was found; empty if nothing is."""
        if found in self.candidates:
            return ""
        lengths = [len(candidate) for candidate in self.candidates]
        if len(self.candidates) == 1 or not min(lengths) <= len(found) <= max(lengths):
            return difference(self.candidates[-1], found)
        for start, end in self._chunks(len(found)):
            if all(found[start:end] != candidate[start:end] for candidate in self.candidates):
                return f"neither old nor new: {difference(self.candidates[-1][:end], found[:end])}"
        return ""

    def _chunks(self, size: int) -> Iterator[tuple[int, int]]:
        ends = {size, *(cut for cut in self.cuts if cut < size), *range(CHUNK_BYTES, size, CHUNK_BYTES)}
        ends |= {len(candidate) for candidate in self.candidates if len(candidate) < size}
        start = 0
        for end in sorted(ends - {0}):
            yield start, end
            start = end


def difference(wanted: bytes, found: bytes) -> str:
    """Describe where two contents first differ, and where the bytes there come from."""
    at = _first_difference(wanted, found)
    text = f"{len(found)} bytes where {len(wanted)} are due; " if len(found) != len(wanted) else ""
    if at == min(len(wanted), len(found)):
        return f"{text}it ends, or goes on, at {at} with {contents.explain(found[at : at + 128], at)}"
    return (
        f"{text}at {at} there is {contents.explain(found[at : at + 128], at)}, "
        f"where {contents.explain(wanted[at : at + 128], at)} is due"
    )


def _first_difference(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:  # the longest common prefix, by bisection
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True)
class Variant:
    """A possible tree, in which the bytes of some files are in doubt."""

    state: State
    doubtful: Mapping[int, Mixture] = field(default_factory=dict)

    def problems(self, found: Found) -> list[str]:
        """Return a sentence for each thing wrong with what was found."""
        wrong = [f"{path} is missing" for path in sorted(set(self.state.names) - set(found.names))]
        wrong += [f"{path} should not be there" for path in sorted(set(found.names) - set(self.state.names))]
        inode_of: dict[int, int] = {}
        for path in sorted(set(self.state.names) & set(found.names)):
            wanted, there = self.state.names[path], found.names[path]
            if (wanted.kind, wanted.target) != (there.kind, there.target):
                wrong.append(f"{path} is a {there.kind} {there.target}, not a {wanted.kind} {wanted.target}")
            elif wanted.kind == FILE:
                if inode_of.setdefault(wanted.number, there.number) != there.number:
                    wrong.append(f"{path} is another inode than the other names of file {wanted.number}")
                mixture = self.doubtful.get(wanted.number) or Mixture((self.state.contents[wanted.number],))
                if text := mixture.problem(found.contents[there.number]):
                    wrong.append(f"{path}: {text}")
        for inode, count in found.links.items():
            if count != (there := [entry.number for entry in found.names.values()].count(inode)):
                wrong.append(f"inode {inode} has {there} names and says {count}")
        if len(set(inode_of.values())) != len(inode_of):
            wrong.append("two files have one inode")
        return wrong


@dataclass(frozen=True)
class Found(State):
    """A tree as a mount shows it; files are numbered by inode, and `links` holds each inode's link count."""

    links: Mapping[int, int] = field(default_factory=dict)


def in_doubt(state: State, operation: Operation) -> list[Variant]:
    """Return the trees that may be there after an operation that failed, without that of its success."""
    if operation.verb == "create":
        made = apply(state, operation)
        return [Variant(state), Variant(made, {operation.number: Mixture((b"", operation.data()))})]
    if operation.verb in ("write", "append"):
        made, number = apply(state, operation), state.names[operation.path].number
        cuts = (operation.offset, operation.offset + operation.size)
        return [Variant(made, {number: Mixture((state.contents[number], made.contents[number]), cuts)})]
    return [Variant(state)]


class Journal:
    """The history of one writer's folder. See the module."""

    def __init__(self) -> None:
        self._states = [State()]
        self._doubt: Operation | None = None
        self.lines: list[str] = []

    @property
    def current(self) -> State:
        """The actual state, as long as nothing is in doubt."""
        return self._states[-1]

    @property
    def is_in_doubt(self) -> bool:
        return self._doubt is not None

    @property
    def unsure(self) -> int:
        """The number of acknowledged operations that a crash of the mount may lose."""
        return len(self._states) - 1

    def acknowledged(self, operation: Operation, *, durable: bool) -> None:
        """Record an operation that returned. If `durable`, it and everything before it is on the disks."""
        assert self._doubt is None
        self._states.append(apply(self.current, operation))
        self.lines.append(f"{operation}: done" + (", durable" if durable else ""))
        if durable:
            self.barrier()

    def barrier(self) -> None:
        """Record that everything so far is on the disks."""
        self._states = [self.current]

    def failed(self, operation: Operation, reason: str) -> None:
        """Record an operation that failed and may have happened."""
        assert self._doubt is None
        self._doubt = operation
        self.lines.append(f"{operation}: {reason}")

    def doubtful_paths(self) -> list[str]:
        """Return the names that the operation in doubt concerns."""
        return [path for path in (self._doubt.path, self._doubt.other) if path] if self._doubt else []

    def allowed(self, *, crashed: bool) -> list[Variant]:
        """Return the trees that may be there. If `crashed`, the last operations since the last barrier may be lost."""
        variants = [Variant(state) for state in (self._states if crashed else self._states[-1:])]
        if self._doubt is not None:
            variants = [*in_doubt(self.current, self._doubt), Variant(apply(self.current, self._doubt)), *variants]
        return variants[::-1] if crashed else variants

    def adopt(self, found: Found, *, crashed: bool) -> list[str]:
        """Accept what was found as the truth if it is allowed; otherwise return what is wrong with it, by the likeliest
        variant."""
        problems: list[list[str]] = []
        for variant in self.allowed(crashed=crashed):
            wrong = variant.problems(found)
            if not wrong:
                numbers = {found.names[path].number: entry.number for path, entry in variant.state.names.items()}
                held = {numbers[inode]: data for inode, data in found.contents.items() if inode in numbers}
                self._states, self._doubt = [replace(variant.state, contents=held)], None
                self.lines.append("looked at, and taken as it is")
                return []
            problems.append(wrong)
        return min(problems, key=len)
