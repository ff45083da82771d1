"""Which reply fits which request."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from dfs_server.protocol import messages
from dfsfuse.net.expected import REPLIES


def test_every_request_after_the_greeting_is_there() -> None:
    asked = set(get_args(messages.Request)) - set(get_args(messages.AuthenticationRequest))
    assert set(REPLIES) == asked


@pytest.mark.parametrize("request_type", list(REPLIES), ids=lambda type: type.__name__)
def test_replies_are_those_that_the_protocol_documents(request_type: type[messages.Request]) -> None:
    documented = re.search(r"Reply:\s+(.*?)\.(\s|$)", request_type.__doc__ or "", re.DOTALL)
    assert documented is not None
    names = re.findall(r"`([A-Z]\w+)`", documented[1].split(";")[0])
    assert {reply.__name__ for reply in REPLIES[request_type]} == set(names)
