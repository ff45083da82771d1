"""Pages of a `MemoryMap`, for code that walks through a whole map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from support.memory_map import MemoryMap


class MemoryPages:
    """See `dfsfuse.upkeep.map_reader.Pages`. `between` is called before each page but the first."""

    def __init__(self, store: MemoryMap, page_items: int = 3) -> None:
        self._store = store
        self._page_items = page_items
        self.between: Callable[[], None] = lambda: None
        self.is_newest = True

    def begin(self) -> bool:
        return self.is_newest

    def pages(self, start: bytes, end: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
        while True:
            items = sorted((key, value) for key, value in self._store.items.items() if start <= key < end)
            if items:
                yield items[: self._page_items]
            if len(items) <= self._page_items:
                return
            start = items[self._page_items - 1][0] + b"\0"
            self.between()

    def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._store.items.get(key) for key in keys]
