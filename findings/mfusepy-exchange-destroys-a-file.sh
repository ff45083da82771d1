#!/bin/bash
# mfusepy 3.1.1 over libfuse 3.14.0 (Debian 12), Linux 6.18: renameat2(RENAME_EXCHANGE) succeeds and destroys one of the two files.
#
# mfusepy's callback for libfuse 3 receives the flags of rename and does not pass them on, so the file system cannot tell an
# exchange from a plain rename: it renames, and the program is told that both files changed places. Over libfuse 2, which mfusepy
# loads first if both are there, the same call is refused with EINVAL and nothing is lost. A file system on mfusepy has no way to
# refuse the flag itself.
#
# Output seen:
#   renameat2(RENAME_EXCHANGE): 0
#   before: a=A b=B    after: b=A
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
unpack libfuse3-3=3.14.0-4
venv mfusepy==3.1.1
mkdir "$work/files" "$work/mount"
echo A >"$work/files/a"
echo B >"$work/files/b"
cat >"$work/passthrough.py" <<'PY'
import os, sys
import mfusepy

class Passthrough(mfusepy.Operations):
    use_ns = True
    def getattr(self, path, fh=None):
        found = os.lstat(sys.argv[1] + path)
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size")
        return {name: getattr(found, name) for name in names}
    def readdir(self, path, fh):
        return [".", "..", *os.listdir(sys.argv[1] + path)]
    def rename(self, old, new):
        os.rename(sys.argv[1] + old, sys.argv[1] + new)
        return 0

mfusepy.FUSE(Passthrough(), sys.argv[2], foreground=True)
PY
FUSE_LIBRARY_PATH="$libraries/libfuse3.so.3" timeout 60 "$work/venv/bin/python" "$work/passthrough.py" "$work/files" "$work/mount" 2>"$work/log" &
until_mounted "$work/mount"
timeout 20 python3 - "$work/mount" <<'PY'
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
a, b = (os.fsencode(f"{sys.argv[1]}/{name}") for name in "ab")
result = libc.renameat2(-100, a, -100, b, 2)
print("renameat2(RENAME_EXCHANGE):", result if result == 0 else os.strerror(ctypes.get_errno()))
PY
after=$(cd "$work/files" && for file in *; do printf '%s=%s ' "$file" "$(cat "$file")"; done)
as_seen "before: a=A b=B    after: $after" "before: a=A b=B    after: b=A " || exit 1
