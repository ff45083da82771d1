"""The checker distinguishes good histories from bad ones, and agrees with trying all orders on thousands of random
ones."""

from __future__ import annotations

import random
from itertools import permutations, product

import pytest

from .linearizable import NEVER, Op, failing_key, is_linearizable

K = b"k"


def put(value: bytes, begin: float, end: float = NEVER) -> Op:
    return Op("put", K, begin, end, value=value)


def get(result: bytes | None, begin: float, end: float = NEVER) -> Op:
    return Op("get", K, begin, end, result=result)


def cas(expected: bytes | None, value: bytes, begin: float, end: float = NEVER, *, done: bool = True) -> Op:
    return Op("cas", K, begin, end, value=value, expected=expected, done=done)


GOOD = {
    "nothing": [],
    "absent at first": [get(None, 0, 1)],
    "one after the other": [put(b"1", 0, 1), get(b"1", 2, 3), put(b"2", 4, 5), get(b"2", 6, 7)],
    "at once, either": [put(b"1", 0, 9), put(b"2", 0, 9), get(b"2", 10, 11), get(b"2", 12, 13)],
    "seen while it is under way": [put(b"1", 0, 9), get(None, 1, 2), get(b"1", 3, 4)],
    "maybe happened, much later": [put(b"1", 0), get(None, 5, 6), get(b"1", 7, 8)],
    "maybe never happened": [put(b"1", 0), get(None, 5, 6), get(None, 7, 8)],
    "one claim wins": [cas(None, b"a", 0, 9), cas(None, b"b", 0, 9, done=False), get(b"a", 10, 11)],
    "a maybe claim wins": [cas(None, b"a", 0), cas(None, b"b", 1, 2, done=False), get(b"a", 3, 4)],
    "a get without an answer": [put(b"1", 0, 1), get(b"x", 2)],
}
BAD = {
    "never written": [get(b"1", 0, 1)],
    "an old value": [put(b"1", 0, 1), put(b"2", 2, 3), get(b"1", 4, 5)],
    "lost": [put(b"1", 0, 1), get(None, 2, 3)],
    "seen and gone": [put(b"1", 0, 9), get(b"1", 1, 2), get(None, 3, 4)],
    "seen before it began": [get(b"1", 0, 1), put(b"1", 2, 3)],
    "two claims win": [cas(None, b"a", 0, 9), cas(None, b"b", 0, 9)],
    "a claim fails against nobody": [cas(None, b"a", 0, 1, done=False)],
    "two readers, two orders": [
        put(b"1", 0, 9),
        put(b"2", 0, 9),
        get(b"1", 10, 11),
        get(b"2", 12, 13),
    ],
    "a maybe happens twice": [put(b"1", 0), put(b"2", 1, 2), get(b"1", 3, 4), put(b"2", 5, 6), get(b"1", 7, 8)],
    "a maybe happens before it began": [get(b"1", 0, 1), put(b"1", 2)],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_pass(name: str) -> None:
    assert is_linearizable(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_are_rejected(name: str) -> None:
    assert not is_linearizable(BAD[name])


def test_keys_are_searched_apart_and_the_bad_one_is_named() -> None:
    fine = [Op("put", b"fine", 0, 1, value=b"1"), Op("get", b"fine", 2, 3, result=b"1")]
    assert failing_key([*fine, *BAD["lost"]]) == K
    assert failing_key([*fine, *GOOD["one after the other"]]) is None


def by_all_orders(ops: list[Op]) -> bool:
    """The definition, taken literally: slow and simple."""
    maybes = [op for op in ops if op.end == NEVER]
    sure = [op for op in ops if op.end != NEVER]
    for chosen in product((False, True), repeat=len(maybes)):
        taken = sure + [op for op, is_in in zip(maybes, chosen, strict=True) if is_in]
        for order in permutations(taken):
            if any(b.end < a.begin for i, a in enumerate(order) for b in order[i + 1 :]):
                continue
            state, fits = None, True
            for op in order:
                fit, state = op.apply(state)
                fits = fits and fit
            if fits:
                return True
    return False


def test_it_agrees_with_trying_all_orders() -> None:
    source = random.Random(1)
    verdicts = [0, 0]
    for _ in range(1500):
        ops = []
        for _ in range(source.randint(1, 5)):
            begin = source.random()
            end = NEVER if source.random() < 0.2 else begin + source.random()
            value, expected = source.choice((b"1", b"2")), source.choice((None, b"1", b"2"))
            kind = source.choice(("get", "put", "cas"))
            ops.append(Op(kind, K, begin, end, value, expected, expected, source.random() < 0.5))
        found = is_linearizable(ops)
        verdicts[found] += 1
        assert found == by_all_orders(ops), ops
    assert min(verdicts) > 200
