#!/bin/bash
# libfuse 2.9.9 (Debian 12): when fuse_main() or fuse_remove_signal_handlers() ends, SIGPIPE has its default action, which is to end
# the process, although the program had it ignored before. Python ignores SIGPIPE at its start and turns a write to a closed
# pipe or socket into BrokenPipeError. After a file system on fusepy 3.0.1 was unmounted, what the same process still has to
# send, such as its last changes to a server that has gone away, ends it without a traceback, a log line or a finally block.
# signal.signal(SIGPIPE, SIG_IGN) after FUSE() helps.
#
# Output seen (whether SIGPIPE is ignored, from SigIgn of /proc/self/status):
#   before FUSE(): ignored
#   after it:      not ignored
#   a write to a closed socket: the process ended by SIGPIPE
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
unpack libfuse2=2.9.9-6+b1
venv fusepy==3.0.1
export FUSE_LIBRARY_PATH=$libraries/libfuse.so.2
mkdir "$work/mount"
cat >"$work/fs.py" <<'PY'
import signal, socket, sys
from fuse import FUSE, Operations

def ignored() -> str:
    with open("/proc/self/status") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn:"))
    return "ignored" if mask >> (signal.SIGPIPE - 1) & 1 else "not ignored"

print("before FUSE():", ignored(), flush=True)
FUSE(Operations(), sys.argv[1], foreground=True, nothreads=True)
print("after it:     ", ignored(), flush=True)
here, there = socket.socketpair()
there.close()
try:
    here.send(b"the last change")
except BrokenPipeError:
    print("a write to a closed socket: BrokenPipeError", flush=True)
PY
timeout 60 "$work/venv/bin/python" "$work/fs.py" "$work/mount" >"$work/seen" &
until_mounted "$work/mount"
umount "$work/mount"
status=0
wait $! || status=$?
[ "$status" != 141 ] || echo "a write to a closed socket: the process ended by SIGPIPE" >>"$work/seen"
as_seen "$(cat "$work/seen")" "before FUSE(): ignored
after it:      not ignored
a write to a closed socket: the process ended by SIGPIPE" || exit 1
