"""Decides whether a history of registers is linearizable: Wing and Gong's search, with memoisation (Lowe, 2017).

A history is linearizable if its operations can be put in one order in which each returns the result that it returned,
and none comes before another that had ended when it began. Keys are independent of each other (linearizability is
local), so each is searched separately. An operation without an end is a "maybe": it may take effect at any time after
it began, or never, and has no result to match.

The search takes one operation after another out of those that may come next. A set of operations, together with the
value that they lead to, is tried only once, which keeps the search fast for histories with few overlapping operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

NEVER: Final = float("inf")
Value = bytes | None


@dataclass(frozen=True)
class Op:
    """An operation on one key.

    get: `result` is the value. put: of `value`. cas: from `expected` to `value`; `done` tells whether it was made.
    """

    kind: str
    key: bytes
    begin: float
    end: float = NEVER
    value: Value = None
    expected: Value = None
    result: Value = None
    done: bool = True

    def apply(self, state: Value) -> tuple[bool, Value]:
        """Return whether its result fits a register with this value, and the value after it. A maybe's result always
        fits."""
        is_maybe = self.end == NEVER
        match self.kind:
            case "get":
                return is_maybe or self.result == state, state
            case "put":
                return True, self.value
            case "cas":
                made = self.expected == state
                return is_maybe or made == self.done, self.value if made else state
        raise AssertionError(self.kind)


def failing_key(history: Iterable[Op]) -> bytes | None:
    """Return a key whose operations have no order that explains them; None if the history is linearizable."""
    by_key: dict[bytes, list[Op]] = {}
    for op in history:
        by_key.setdefault(op.key, []).append(op)
    return next((key for key, ops in by_key.items() if not is_linearizable(ops)), None)


def is_linearizable(history: Iterable[Op]) -> bool:
    """Return whether the operations, all on one key, can be put in order. The register is absent (None) at first."""
    # A get without a known result proves nothing.
    ops = sorted((op for op in history if op.end != NEVER or op.kind != "get"), key=lambda op: op.begin)
    must = sum(1 << i for i, op in enumerate(ops) if op.end != NEVER)
    seen: set[tuple[int, Value]] = set()
    stack: list[tuple[int, Value]] = [(0, None)]
    while stack:
        taken, state = stack.pop()
        if taken & must == must:
            return True
        # An operation may come next if no other remaining one had ended when it began.
        ends_first = NEVER
        for i, op in enumerate(ops):
            if taken >> i & 1:
                continue
            if op.begin > ends_first:
                break
            ends_first = min(ends_first, op.end)
        for i, op in enumerate(ops):
            if op.begin > ends_first:
                break
            if taken >> i & 1:
                continue
            fits, after = op.apply(state)
            place = (taken | 1 << i, after)
            if fits and place not in seen:
                seen.add(place)
                stack.append(place)
    return False
