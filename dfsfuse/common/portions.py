"""Divides items into portions, preserving order: as many as one request, batch or window can take. Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def by_count(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Yield portions of at most this many items."""
    rest = iter(items)
    while portion := list(islice(rest, count)):
        yield portion


def by_bytes(
    items: Iterable[T], most_bytes: int, size_bytes: Callable[[T], int], count: int = sys.maxsize
) -> Iterator[list[T]]:
    """Yield portions of at most this many bytes and items. A larger item is a portion by itself."""
    portion: list[T] = []
    size = 0
    for item in items:
        more = size_bytes(item)
        if portion and (size + more > most_bytes or len(portion) == count):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += more
    if portion:
        yield portion
