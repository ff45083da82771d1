"""The exit codes are an interface, so each number is repeated here."""

from __future__ import annotations

import pytest

from dfs_server.shared.config_file import ConfigError
from dfsfuse import errors
from dfsfuse.cli import exit_codes
from dfsfuse.mount import errors as mount_errors
from dfsfuse.mount.options import OptionError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DfsError(), 1),
        (ConfigError(), 2),
        (OptionError(), 2),
        (errors.IncompleteError(), 3),
        (errors.AuthenticationError(), 4),
        (errors.WrongServerError(), 5),
        (errors.UnavailableError(), 6),
        (errors.ReadOnlyError(), 7),
        (errors.MaybeDoneError(), 8),
        (errors.NoSpaceError(), 9),
        (mount_errors.MountpointError(), 10),
        (mount_errors.FuseMissingError(), 11),
        (mount_errors.MountBusyError(), 12),
        (mount_errors.MountTimeoutError(), 13),
        (KeyboardInterrupt(), 130),
        (OSError(), 1),
    ],
)
def test_code(error: BaseException, code: int) -> None:
    assert exit_codes.exit_code_of(error) == code
    assert f" {code}   " in (exit_codes.__doc__ or "")
