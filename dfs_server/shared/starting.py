"""How the installed programs start: Ctrl-C ends them with status 130 and no traceback, also while they are loaded.

Loading a command imports half a second's worth of modules, before any code of its own could handle a signal. So the
programs (`[project.scripts]` in pyproject.toml) begin in modules that import nothing but this one. Knows no command.
No threads.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
SWITCH_S = 0.001
"""How long a thread may compute while another one waits for the interpreter (Python's default is 5 ms). A session of a
server waits for it whenever the disk or the network has answered: beside one long question, what takes 1 ms took 9. A
mount waits for it at each answer of a server, also while it heals or compacts."""


def start(load: Callable[[], Callable[[], None]]) -> None:
    """Run the `main` that `load` imports. A SIGINT that is ignored (`nohup`, background jobs of shells) stays so."""
    try:
        before = signal.getsignal(signal.SIGINT)
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)  # at once: an import must not see a KeyboardInterrupt, nor swallow it
        main = load()
        signal.signal(signal.SIGINT, before)
        main()
    except KeyboardInterrupt:  # between here and where the command handles it
        sys.exit(INTERRUPTED)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
