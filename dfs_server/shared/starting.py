"""How the installed programs start: Ctrl-C ends them with status 130 and no traceback, even while they are loading.

Loading a command imports half a second's worth of modules, before any of its own code could handle a signal. So the
programs (`[project.scripts]` in pyproject.toml) begin in modules that import only this one. Knows no command. No
threads.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130  # 128 + SIGINT, as in shells
SWITCH_S = 0.001
"""How long a thread may compute while another one waits for the interpreter (Python's default is 5 ms). A server's
session needs the interpreter whenever the disk or the network has answered: next to one long request, an operation of 1
ms took 9 ms. A mount needs it for each answer of a server, even while it heals or compacts."""


def start(load: Callable[[], Callable[[], None]]) -> None:
    """Run the `main` that `load` imports. If SIGINT is ignored (`nohup`, background jobs of shells), it stays
    ignored."""
    try:
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)  # now: an import must not see a KeyboardInterrupt, nor swallow it
        main = load()
        signal.signal(signal.SIGINT, before)
        main()
    except KeyboardInterrupt:  # between here and where the command handles it
        sys.exit(INTERRUPTED)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
