"""Errors like those that a local file system raises, and the wording that several errors share."""

from __future__ import annotations

import errno
import os

import pytest

from dfsfuse.errors import posix_error, too_few_to_write


def test_an_error_of_posix_is_of_the_subclass_that_fits_and_says_what_its_number_means() -> None:
    error = posix_error(errno.ENOENT)
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.strerror) == (errno.ENOENT, os.strerror(errno.ENOENT))
    assert posix_error(errno.EIO, "the disk is gone").strerror == "the disk is gone"


@pytest.mark.parametrize(
    ("answering", "who"),
    [(2, "only 2 of 4 servers answer"), (1, "only 1 of 4 servers answers"), (0, "no server answers")],
)
def test_too_few_servers_to_write_are_counted_in_correct_english(answering: int, who: str) -> None:
    assert too_few_to_write(answering) == (
        f"{who}, and writing needs three: 'dfc status' shows which are missing; start them"
    )
