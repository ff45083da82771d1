"""What a client remembers of the map: values of keys, absences, and ranges known completely.

Pure bookkeeping: no network, no clock, no lock (the owner's lock guards it). Everything in it is true of one state, the
owner's known slot: a key that another client changed must be forgotten before the owner's slot moves on.

A *family* is all keys with a common prefix that are worth knowing together (a folder's entries, a file's regions); a
function passed in returns the prefix of a key's family, since this module knows no keys. A family that is known
completely stays so when others change a few of its keys: only these are unknown then.

The owner's slot may move on while a server is being asked. Code that waits for an answer records what changes meanwhile
(`Changes`): an answer of an earlier slot gives the values of all other keys.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

MAX_KEYS: Final = 200_000
"""Above this number, `trim` forgets. A key takes about 250 bytes with its value, and a small file has three: an entry,
an inode and a region. Enough for the names of a folder of 100,000 files and for what was last used of the rest."""
LARGE_FAMILY: Final = 256
"""A family of more keys than this takes long to be fetched again, and is kept longer."""
MAX_RANGES: Final = 64
MAX_UNKNOWN: Final = 20_000
"""A family with more unknown keys than this, and more than it has known ones, does not count as complete any more.
Names that other clients have added usually stay unknown, since nothing here asks for them: they are no reason to forget
the rest."""


class Unknown:
    """The cache cannot tell."""


UNKNOWN: Final = Unknown()


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after all keys with this prefix (which must not be all 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])


class Changes:
    """The keys of a cache that have got other values, or may have, since this watch was begun."""

    __slots__ = ("all", "has_answer", "keys")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self.all = False
        """Whether anything may have changed."""
        self.has_answer = False
        """Whether an answer has come that is to be put into the cache. For the code that watches."""

    def begin_anew(self) -> None:
        """Disregard what changed so far."""
        self.keys.clear()
        self.all = False


NOTHING: Final = Changes()
"""Passed with an answer that is as of the owner's slot: nothing has changed since."""


def laid_over(
    items: list[tuple[bytes, bytes]], changes: Mapping[bytes, bytes | None], start: bytes, end: bytes
) -> list[tuple[bytes, bytes]]:
    """Return the items of a range, in order, after these changes; None deletes."""
    changed = {key: value for key, value in changes.items() if start <= key < end}
    if not changed:
        return items
    return sorted((key, value) for key, value in {**dict(items), **changed}.items() if value is not None)


def _include(members: list[bytes], key: bytes, wanted: bool) -> None:
    """Make the sorted list hold the key, or not. Whether the key has a value does not decide that: a change that was
    answered while the family was being fetched has one, and is not in the list."""
    at = bisect_left(members, key)
    is_there = at < len(members) and members[at] == key
    if wanted and not is_there:
        members.insert(at, key)
    elif is_there and not wanted:
        del members[at]


class MapCache:
    """Values, absences and complete families."""

    def __init__(self, family_of: Callable[[bytes], bytes | None], max_keys: int = MAX_KEYS) -> None:
        self._family_of = family_of
        self._max_keys = max_keys
        self._values: dict[bytes, bytes | None] = {}
        self._families: dict[bytes, list[bytes]] = {}
        """Complete families: prefix -> its keys that have a value, sorted. Each of the keys is in `_values`."""
        self._unknown: dict[bytes, set[bytes]] = {}
        """By complete family: keys that others have changed. They are neither in its list nor in `_values`."""
        self._ranges: dict[tuple[bytes, bytes], list[tuple[bytes, bytes]]] = {}
        """The last few other ranges that were read."""
        self._watches: list[Changes] = []

    def get(self, key: bytes) -> bytes | Unknown | None:
        """Return the value, None if there is none, UNKNOWN if the cache does not know it."""
        found = self._values.get(key, UNKNOWN)
        if found is UNKNOWN:
            family = self._family_of(key)
            if family in self._families and key not in self._unknown.get(family, ()):
                return None
        return found

    def unknown_in(self, start: bytes, end: bytes) -> list[bytes]:
        """Return the unknown keys of this family, if the range is a family that is complete otherwise."""
        return sorted(self._unknown.get(start, ())) if end == prefix_end(start) else []

    def count(self, family: bytes) -> int:
        """Return how many keys of the family are known to have a value, if it is known completely."""
        return len(self._families.get(family, ()))

    def scan(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]] | Unknown:
        """Return the items of a family or of another range, in order, if it is known completely."""
        keys = self._families.get(start) if end == prefix_end(start) else None
        if keys is None:
            return self._ranges.get((start, end), UNKNOWN)
        if self._unknown.get(start):
            return UNKNOWN
        items = []
        for key in keys:
            value = self._values[key]
            assert value is not None
            items.append((key, value))
        return items

    @contextmanager
    def watched(self) -> Iterator[Changes]:
        """Yield what changes from now on, until the end of a `with`."""
        changes = Changes()
        self._watches.append(changes)
        try:
            yield changes
        finally:
            self._watches.remove(changes)

    def fetched(self, keys: Sequence[bytes], values: Sequence[bytes | None], since: Changes = NOTHING) -> None:
        """Store values that were read at a slot that the owner has known; `since` has changed since."""
        for key, value in zip(keys, values, strict=True):
            if key not in since.keys:
                self._learn(key, value)

    def fetched_family(self, prefix: bytes, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Store a whole family that was read at the owner's known slot."""
        self._values.update(items)
        self._families[prefix] = [key for key, _ in items]
        self._unknown.pop(prefix, None)

    def fetched_range(
        self, start: bytes, end: bytes, items: list[tuple[bytes, bytes]], since: Changes = NOTHING
    ) -> None:
        """Store a whole range that was read, likewise."""
        newer = {key: self.get(key) for key in since.keys if start <= key < end}
        unknown = [key for key, value in newer.items() if isinstance(value, Unknown)]
        known = {key: None if isinstance(value, Unknown) else value for key, value in newer.items()}
        items = laid_over(items, known, start, end)
        if end == prefix_end(start) and self._family_of(start + b"x") == start:
            self.fetched_family(start, items)
            self._forget_keys(unknown)
        elif not unknown:
            if len(self._ranges) == MAX_RANGES:
                del self._ranges[next(iter(self._ranges))]
            self._ranges[start, end] = items

    def changed_here(self, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes]) -> None:
        """Apply the owner's own batch, which was chosen at the next slot."""
        puts, deletes = list(puts), list(deletes)
        if self._ranges or self._watches:
            changed = [key for key, _ in puts] + deletes
            self._forget_ranges(changed)
            self.committed_here(changed)
        for key, value in puts:
            self._learn(key, value)
        for key in deletes:
            self._learn(key, None)

    def committed_here(self, keys: Iterable[bytes]) -> None:
        """Record that the owner's own batch with these keys was chosen. Their values are here already; a server's
        answer may be from before."""
        for watch in self._watches:
            watch.keys.update(keys)

    def changed_elsewhere(self, keys: Iterable[bytes]) -> None:
        """Record that another client changed these."""
        if self._ranges or self._watches:
            keys = list(keys)
            self._forget_ranges(keys)
            self.committed_here(keys)
        self._forget_keys(keys)

    def _forget_keys(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._values.pop(key, None)
            family = self._family_of(key)
            members = None if family is None else self._families.get(family)
            if family is None or members is None:
                continue
            _include(members, key, False)
            unknown = self._unknown.setdefault(family, set())
            unknown.add(key)
            if len(unknown) > max(MAX_UNKNOWN, len(members)):
                self._drop(family)

    def forget(self) -> dict[bytes, bytes | None]:
        """Forget everything, since anything may have changed. Returns the values that were known."""
        for watch in self._watches:
            watch.all = True
        values, self._values = self._values, {}
        self._families.clear()
        self._unknown.clear()
        self._ranges.clear()
        return values

    def trim(self) -> None:
        """If there is too much, forget the older half, except for large families; if that is not enough, all but these.
        The owner calls this before an operation: what is fetched for one operation stays until it has finished, however
        much it is."""
        if self._size <= self._max_keys:
            return
        large = {prefix for prefix, keys in self._families.items() if len(keys) > LARGE_FAMILY}
        others = [key for key in self._values if self._family_of(key) not in large]
        half = len(others) // 2 + 1
        self._drop_keys(others[:half])
        for prefix in [prefix for prefix, keys in self._families.items() if not keys]:
            self._drop(prefix)
        enough = self._max_keys * 3 // 4  # with less to gain, this would be done again and again
        if self._size > enough:
            self._drop_keys(others[half:])
        if self._size > enough:
            self.forget()

    def _drop_keys(self, keys: Iterable[bytes]) -> None:
        """Forget these, and that their families are complete."""
        for key in keys:
            del self._values[key]
            family = self._family_of(key)
            if family is not None:
                self._drop(family)

    def _forget_ranges(self, keys: Sequence[bytes]) -> None:
        for start, end in [at for at in self._ranges if any(at[0] <= key < at[1] for key in keys)]:
            del self._ranges[start, end]

    def _learn(self, key: bytes, value: bytes | None) -> None:
        """Record the key's value."""
        family = self._family_of(key)
        members = None if family is None else self._families.get(family)
        if family is None or members is None:
            self._values[key] = value
            return
        if family in self._unknown:
            self._unknown[family].discard(key)
        _include(members, key, value is not None)
        if value is not None:
            self._values[key] = value
        else:
            self._values.pop(key, None)  # the family shows that it is absent

    def _drop(self, family: bytes) -> None:
        """Stop considering the family completely known; what is known of its keys stays."""
        self._families.pop(family, None)
        self._unknown.pop(family, None)

    @property
    def _size(self) -> int:
        return len(self._values) + len(self._families)
