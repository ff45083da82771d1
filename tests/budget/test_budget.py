"""No operation costs more than the table in `table.md` allows; if one costs less, the table must be updated."""

from __future__ import annotations

import pytest

from .__main__ import BEGIN, END
from .cost import parse_table
from .measured import PAGE, TABLE, TIMEOUT_S, Measured, measure

pytestmark = pytest.mark.timeout(TIMEOUT_S + 10)

ALLOWED = parse_table(TABLE.read_text())
ADVICE = """
A cost that grew: find the commit (git bisect), and mend it or say in yours why it is worth it.
One that fell: lower the number. `make budget WRITE=1` writes both into the table."""


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure()


@pytest.mark.parametrize("name", ALLOWED)
def test_an_operation_costs_what_is_written_down(measured: Measured, name: str) -> None:
    assert name in measured.lines, "the table has operations that are not measured any more"
    told = measured.lines[name].differences(ALLOWED[name])
    assert not told, "\n".join([f"{name}:", *told, f"Who woke whom: {measured.notes[name] or 'nobody'}", ADVICE])


def test_every_operation_is_in_the_table(measured: Measured) -> None:
    assert list(measured.lines) == list(ALLOWED), ADVICE


def test_the_page_about_benchmarks_has_the_same_table() -> None:
    _, _, rest = PAGE.read_text().partition(BEGIN)
    assert rest.partition(END)[0] == TABLE.read_text(), "make budget WRITE=1"
