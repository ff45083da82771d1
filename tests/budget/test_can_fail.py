"""Each kind of count detects a change that was made on purpose."""

from __future__ import annotations

import pytest

from .cost import parse_table
from .measured import TABLE, TIMEOUT_S, measure

pytestmark = pytest.mark.timeout(TIMEOUT_S + 10)

CREATE = "create, write 4 KiB, close"
RENAME = "10 x rename"


@pytest.mark.parametrize(
    ("broken", "name", "shown"),
    [
        ("one_request_more", CREATE, "until it returns, GetPosition requests grew"),
        ("one_request_more", CREATE, "until it returns, round trips grew"),
        ("one_slot_more", RENAME, "afterwards, slots grew"),
        ("one_fsync_more", CREATE, "until it returns, fsyncs grew"),
        ("no_fsyncs", CREATE, "until it returns, fsyncs fell"),
        ("one_hand_over_more", CREATE, "until it returns, hand-overs grew"),
    ],
)
def test_what_is_broken_on_purpose_is_seen(broken: str, name: str, shown: str) -> None:
    told = measure(name, broken=broken).lines[name].differences(parse_table(TABLE.read_text())[name])
    assert any(what.startswith(shown) for what in told), told
