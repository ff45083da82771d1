"""The sentences that errors have in common."""

from __future__ import annotations

import pytest

from dfsfuse.errors import too_few_to_write


@pytest.mark.parametrize(
    ("answering", "who"),
    [(2, "only 2 of 4 servers answer"), (1, "only 1 of 4 servers answers"), (0, "no server answers")],
)
def test_too_few_servers_to_write_are_counted_in_correct_english(answering: int, who: str) -> None:
    assert too_few_to_write(answering) == (
        f"{who}, and writing needs three: 'dfc status' shows which are missing; start them"
    )
