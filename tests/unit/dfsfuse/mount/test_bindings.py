"""What signals do to a mount while it is served, and while it saves what is left. Each test uses a process of its own,
which a signal might end."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, signal, threading
from dfsfuse.mount import bindings

def write():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        os.write(writer, b"x")
    except BrokenPipeError:
        print("broken pipe")

with bindings.signals_held():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as libfuse leaves it
    write()
    other = threading.Thread(target=write)
    other.start()
    other.join()
write()
print(signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


def test_a_connection_closed_by_a_server_does_not_end_a_mount_that_libfuse_has_left() -> None:
    """libfuse 2.9 restores SIGPIPE's default action when it ends, and the mount still has data to save then."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "broken pipe\n" * 3 + "True set()\n"), done.stderr
