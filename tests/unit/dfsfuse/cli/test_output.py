"""How names, sizes, times and tables are formatted."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfsfuse.cli.output import human_size, iso_time, json_text, local_time, printable, table


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("Grüße 日本 🌊".encode(), "Grüße 日本 🌊"),
        (b"two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
        (b"back\\slash", "back\\\\slash"),
        (b"\x1b[31mred", "\\033[31mred"),
        (b"caf\xe9", "caf\\351"),
        ("right\u202eleft".encode(), "right\\342\\200\\256left"),
        (b"", ""),
    ],
)
def test_odd_names_are_escaped_as_ls_b_does_it(name: bytes, shown: str) -> None:
    assert printable(name) == shown


@given(st.binary(max_size=255))
def test_any_name_is_one_printable_line_that_can_be_encoded(name: bytes) -> None:
    shown = printable(name)
    assert shown.isprintable()
    shown.encode("utf-8")


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_two_names_never_look_alike(one: bytes, other: bytes) -> None:
    assert (printable(one) == printable(other)) == (one == other)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (1025, "1.1K"),
        (9 * 1024 * 1024, "9.0M"),
        (10 * 1024, "10K"),
        (10 * 1024 + 1, "11K"),
        (1000 * 1024, "1.0M"),
        (5 * 1024**4, "5.0T"),
        (2**63, "8.0E"),
    ],
)
def test_sizes_as_ls_h_writes_them(size: int, shown: str) -> None:
    assert human_size(size) == shown


def test_columns_are_aligned_also_with_wide_characters_and_end_without_blanks() -> None:
    lines = table([("日本", "1", "x"), ("ab", "200", "yy")], header=("NAME", "SIZE", "END"), right=" r")
    assert lines == ["NAME  SIZE  END", "日本     1  x", "ab     200  yy"]
    assert table([]) == []


def test_times() -> None:
    assert iso_time(0) == "1970-01-01T00:00:00.000000000Z"
    assert iso_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert len(local_time(1_700_000_000_000_000_000)) == len("2023-11-14 22:13")
    assert iso_time(10**30) is None
    assert local_time(10**30) == "?"


def test_json_keeps_names_that_are_not_utf8() -> None:
    assert json_text("name", b"ok") == {"name": "ok"}
    facts = json_text("name", b"caf\xe9")
    assert facts["name_b64"] == "Y2Fm6Q=="
    text = json.dumps(facts)
    assert text.isascii()
    assert os.fsencode(json.loads(text)["name"]) == b"caf\xe9"
