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
