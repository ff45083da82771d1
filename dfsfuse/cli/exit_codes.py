"""The exit codes of `dfc` and `dfsmount`. They are an interface: scripts test them. Add, never renumber.

     0   done
     1   something else went wrong; the sentence on standard error says what
     2   the command line or a config file is wrong; nothing was done
     3   a file is incomplete: no good copy of some piece is available
     4   a server refused the user or password; nothing was done
     5   the server at an address is not the one the config names there
     6   too few servers answer
     7   read-only: enough servers answer to read, too few (fewer than three) to write
     8   no answer in time: the change may have happened, or may still happen
     9   too few servers have free space
    10   the mountpoint cannot be used: missing, not a folder, not empty, already mounted, or not mounted
    11   FUSE is missing on this machine (libfuse, fusermount3 or /dev/fuse), or refused the mount
    12   the mount is in use and was not unmounted
    13   the mount did not start, or did not finish, in time
    14   not everything checked is as it should be, and it was not repaired: verify, heal, fsck
   129   ended by SIGHUP
   130   interrupted (Ctrl-C)
   141   the reader of the output has gone (128 + SIGPIPE)
   143   ended by SIGTERM

Codes 3 to 13 are the `exit_code` of the raised error (`dfsfuse.errors`, `dfsfuse.mount.errors`); this module
uses only that attribute.
"""

from __future__ import annotations

from dfs_server.shared.config_file import ConfigError
from dfsfuse.errors import DfsError

DONE = 0
FAILED = 1
USAGE = 2
FOUND = 14
INTERRUPTED = 130
OUTPUT_CLOSED = 141


def exit_code_of(error: BaseException) -> int:
    """The exit code for an error."""
    match error:
        case DfsError():
            return error.exit_code
        case ConfigError():
            return USAGE
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            return FAILED
