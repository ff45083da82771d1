"""What the clients did and saw, and the checks on it.

Lists (`append`, `read`): a complete check for append-only lists with unique elements. The final list is the order.
Every read must be a prefix of it that contains everything acknowledged before the read began, and nothing whose append
began after the read ended. Every acknowledged append is there once, after all those acknowledged before it began; an
append that was not acknowledged may be there, at most once.

Registers and names (`get`, `put`, `cas`; a claim of a name is a cas from nothing): `linearizable`. In addition, checked
directly: of all claims of a name, at most one was answered with success and kept, and it is there at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .linearizable import NEVER, Op, failing_key
from .world import SimulationError

LISTS = (b"a", b"b")


@dataclass
class Operation:
    """An entry of the history. `end` is infinite until the operation is known to be over."""

    kind: str
    key: bytes
    begin: float
    end: float = NEVER
    element: int = 0
    seen: list[int] = field(default_factory=list)
    outcome: str = "maybe"
    """ok; maybe; failed: not done; stale: read without a quorum; late: done some time after it was answered; void:
    based on an answer that was late or lost, so what it saw proves nothing."""
    client: str = ""
    value: bytes | None = None
    expected: bytes | None = None
    result: bytes | None = None
    done: bool = True
    told_by_two: bool = False
    """Read without a quorum, when two servers showed the end of the log."""
    answered: bool = False
    """Answered under the lease, before any commit."""
    lease_until: float = 0.0

    def shown(self) -> str:
        """Return a line for the trace."""
        what = {"get": f"{self.result!r}", "put": f"{self.value!r}"}.get(self.kind)
        return f"{self.kind} {self.key!r} " + (what or f"{self.expected!r} -> {self.value!r}: {self.done}")


@dataclass
class History:
    operations: list[Operation] = field(default_factory=list)
    elements: int = 0

    def begin(self, kind: str, key: bytes, now: float) -> Operation:
        operation = Operation(kind, key, now)
        if kind == "append":
            self.elements += 1
            operation.element = self.elements
        self.operations.append(operation)
        return operation


def decode(value: bytes | None) -> list[int]:
    return [int(part) for part in value.split()] if value else []


def encode(elements: list[int]) -> bytes:
    return b" ".join(b"%d" % element for element in elements)


def check_registers(history: History, final_map: dict[bytes, bytes]) -> None:
    """Check the linearizability of registers and names; the last state counts as a read after everything."""
    ops = [op for op in history.operations if op.kind in ("get", "put", "cas") and op.outcome not in ("failed", "void")]
    checked = [Op(op.kind, op.key, op.begin, op.end, op.value, op.expected, op.result, op.done) for op in ops]
    last = max([op.begin for op in ops] + [op.end for op in ops if op.end < NEVER], default=0.0) + 1.0
    checked += [Op("get", key, last, last + 1.0, result=final_map.get(key)) for key in {op.key for op in ops}]
    for key in sorted({op.key for op in ops if op.key.startswith(b"n")}):
        kept = [op for op in ops if op.key == key and op.kind == "cas" and op.done and op.outcome in ("ok", "late")]
        if len(kept) > 1:
            raise SimulationError(
                f"name {key!r} was claimed with success {len(kept)} times: {[o.shown() for o in kept]}"
            )
        if kept and final_map.get(key) != kept[0].value:
            raise SimulationError(f"{kept[0].shown()} of {kept[0].client} was kept, and is {final_map.get(key)!r}")
    if (key := failing_key(checked)) is not None:
        raise SimulationError(f"the history of {key!r} is not linearizable:\n" + _table(ops, key))


def _table(ops: list[Operation], key: bytes) -> str:
    return "\n".join(
        f"  {op.begin:9.4f} {op.end:9.4f} {op.client} {op.outcome:5} {'lease' if op.answered else '':5} {op.shown()}"
        for op in ops
        if op.key == key
    )


def check_lists(history: History, final_map: dict[bytes, bytes]) -> None:
    """Check the linearizability of the lists, and that nothing acknowledged is lost."""
    for key in LISTS:
        final = decode(final_map.get(key))
        if len(set(final)) != len(final):
            raise SimulationError(f"an element is twice in list {key!r}: {final}")
        place = {element: index for index, element in enumerate(final)}
        appends = [op for op in history.operations if op.key == key and op.kind == "append"]
        reads = [op for op in history.operations if op.key == key and op.kind == "read" and op.outcome == "ok"]
        for op in appends:
            if op.outcome == "ok" and op.element not in place:
                raise SimulationError(f"acknowledged append {op.element} is lost from {key!r}: {final}")
            if op.outcome == "failed" and op.element in place:
                raise SimulationError(f"append {op.element} was refused and yet done in {key!r}")
        for op in appends:
            for later in appends:
                if op.end < later.begin and later.element in place and place[op.element] > place[later.element]:
                    raise SimulationError(
                        f"{op.element} was acknowledged before {later.element} began, and is after it"
                    )
        for op in reads:
            if final[: len(op.seen)] != op.seen:
                raise SimulationError(f"a read saw {op.seen}, no prefix of {final}")
            for append in appends:
                seen = append.element in op.seen
                if append.end < op.begin and append.outcome == "ok" and not seen:
                    raise SimulationError(f"a read missed {append.element}, acknowledged before it began")
                if seen and append.begin > op.end:
                    raise SimulationError(f"a read saw {append.element} before its append began")
        for first in reads:
            for second in reads:
                if first.end < second.begin and len(first.seen) > len(second.seen):
                    raise SimulationError("a later read saw less than an earlier one")
