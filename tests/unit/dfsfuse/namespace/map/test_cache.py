"""The cache compared with a plain dict: it may not know a value, but it is never wrong."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dfsfuse.namespace.map.cache import MAX_UNKNOWN, MapCache, Unknown, prefix_end

KEYS = [b"d1/a", b"d1/b", b"d1/c", b"d2/a", b"i1", b"i2"]
FAMILIES = [b"d1/", b"d2/"]
RANGES = [(b"d1/a", b"d1/c"), (b"d1/b", b"e"), (b"d1/", b"d10")]


def family_of(key: bytes) -> bytes | None:
    return key[:3] if key.startswith(b"d") else None


def test_prefix_end() -> None:
    assert prefix_end(b"d/") == b"d0"
    assert prefix_end(b"a\xff\xff") == b"b"


def test_absent_keys_of_a_complete_family_are_known() -> None:
    cache = MapCache(family_of)
    assert isinstance(cache.get(b"d1/a"), Unknown)
    cache.fetched_family(b"d1/", [(b"d1/b", b"2")])
    assert cache.get(b"d1/a") is None
    assert cache.get(b"d1/b") == b"2"
    assert isinstance(cache.get(b"d2/a"), Unknown)


def test_the_older_half_is_forgotten_when_there_is_too_much_and_an_operation_is_through() -> None:
    cache = MapCache(family_of, max_keys=3)
    cache.fetched([b"i1", b"i2"], [b"1", None])
    cache.fetched([b"i3", b"i4"], [b"3", b"4"])
    assert cache.get(b"i1") == b"1"
    cache.trim()
    assert isinstance(cache.get(b"i1"), Unknown)
    assert cache.get(b"i4") == b"4"
    cache.trim()
    assert cache.get(b"i4") == b"4"


def test_a_large_family_is_kept_longer_than_what_is_newer() -> None:
    cache = MapCache(family_of, max_keys=1000)
    cache.fetched_family(b"d1/", [(b"d1/%03d" % number, b"x") for number in range(300)])
    cache.fetched([b"i%d" % number for number in range(800)], [b"y"] * 800)
    cache.trim()
    assert cache.get(b"d1/absent") is None
    assert isinstance(cache.get(b"i0"), Unknown) and cache.get(b"i799") == b"y"
    cache.fetched_family(b"d2/", [(b"d2/%03d" % number, b"x") for number in range(600)])
    cache.trim()
    assert isinstance(cache.get(b"d1/000"), Unknown)  # with only large families left, everything is forgotten


def test_a_large_family_stays_when_all_else_is_forgotten() -> None:
    cache = MapCache(family_of, max_keys=1000)
    cache.fetched_family(b"d1/", [(b"d1/%03d" % number, b"x") for number in range(500)])
    cache.fetched([b"i%d" % number for number in range(800)], [b"y"] * 800)
    cache.trim()
    assert cache.get(b"d1/absent") is None
    assert cache.get(b"d1/000") == b"x"
    assert isinstance(cache.get(b"i799"), Unknown)


def test_what_is_deleted_takes_no_room_in_a_complete_family() -> None:
    cache = MapCache(family_of, max_keys=12)
    cache.fetched_family(b"d1/", [])
    for number in range(100):
        key = b"d1/%d" % number
        cache.changed_here([(key, b"x")], [])
        cache.changed_here([], [key])
        cache.trim()
        assert cache.get(key) is None


def test_of_a_complete_family_only_what_others_changed_is_unknown() -> None:
    cache = MapCache(family_of)
    cache.fetched_family(b"d1/", [(b"d1/a", b"1"), (b"d1/b", b"2")])
    cache.changed_elsewhere([b"d1/b", b"d1/c"])
    assert isinstance(cache.get(b"d1/b"), Unknown) and isinstance(cache.get(b"d1/c"), Unknown)
    assert (cache.get(b"d1/a"), cache.get(b"d1/z")) == (b"1", None)
    assert isinstance(cache.scan(b"d1/", b"d10"), Unknown)
    assert cache.unknown_in(b"d1/", b"d10") == [b"d1/b", b"d1/c"]
    cache.fetched([b"d1/b", b"d1/c"], [None, b"3"])
    assert cache.scan(b"d1/", b"d10") == [(b"d1/a", b"1"), (b"d1/c", b"3")]
    cache.changed_elsewhere([b"d1/%d" % number for number in range(MAX_UNKNOWN + 1)])
    assert cache.unknown_in(b"d1/", b"d10") == []
    assert isinstance(cache.get(b"d1/z"), Unknown)


class AgainstADict(RuleBasedStateMachine):
    """`truth` is the map at the known slot."""

    def __init__(self) -> None:
        super().__init__()
        self.truth: dict[bytes, bytes] = {}
        self.cache = MapCache(family_of, max_keys=4)

    def family(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        return self.range(prefix, prefix_end(prefix))

    def range(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        return sorted((key, value) for key, value in self.truth.items() if start <= key < end)

    @rule(keys=st.lists(st.sampled_from(KEYS), unique=True))
    def fetch(self, keys: list[bytes]) -> None:
        self.cache.fetched(keys, [self.truth.get(key) for key in keys])

    @rule(prefix=st.sampled_from(FAMILIES))
    def fetch_family(self, prefix: bytes) -> None:
        self.cache.fetched_family(prefix, self.family(prefix))

    @rule(ends=st.sampled_from(RANGES))
    def fetch_range(self, ends: tuple[bytes, bytes]) -> None:
        self.cache.fetched_range(*ends, self.range(*ends))

    @rule(puts=st.dictionaries(st.sampled_from(KEYS), st.binary(min_size=1, max_size=2)), key=st.sampled_from(KEYS))
    def change_here(self, puts: dict[bytes, bytes], key: bytes) -> None:
        puts.pop(key, None)
        self.truth.update(puts)
        self.truth.pop(key, None)
        self.cache.changed_here(puts.items(), [key])

    @rule(
        prefix=st.sampled_from(FAMILIES),
        keys=st.lists(st.sampled_from(KEYS), unique=True),
        puts=st.dictionaries(st.sampled_from(KEYS), st.binary(min_size=1, max_size=2)),
        key=st.sampled_from(KEYS),
    )
    def change_here_while_others_are_fetched(
        self, prefix: bytes, keys: list[bytes], puts: dict[bytes, bytes], key: bytes
    ) -> None:
        """The fetched values do not contain the change, which is applied on top once more."""
        family, values = self.family(prefix), [self.truth.get(key) for key in keys]
        self.change_here(puts, key)
        self.cache.fetched_family(prefix, family)
        self.cache.fetched(keys, values)
        self.cache.changed_here(puts.items(), [key])

    @rule(puts=st.dictionaries(st.sampled_from(KEYS), st.binary(min_size=1, max_size=2)), key=st.sampled_from(KEYS))
    def change_elsewhere(self, puts: dict[bytes, bytes], key: bytes) -> None:
        puts.pop(key, None)
        self.truth.update(puts)
        self.truth.pop(key, None)
        self.cache.changed_elsewhere([*puts, key])

    @rule()
    def trim(self) -> None:
        self.cache.trim()

    @rule()
    def forget(self) -> None:
        self.cache.forget()

    @invariant()
    def never_wrong(self) -> None:
        for key in KEYS:
            found = self.cache.get(key)
            assert isinstance(found, Unknown) or found == self.truth.get(key), key
        for prefix in FAMILIES:
            items = self.cache.scan(prefix, prefix_end(prefix))
            assert isinstance(items, Unknown) or items == self.family(prefix), prefix
        for start, end in RANGES:
            items = self.cache.scan(start, end)
            assert isinstance(items, Unknown) or items == self.range(start, end), start


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(
    max_examples=100, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow]
)
