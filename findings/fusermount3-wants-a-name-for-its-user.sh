#!/bin/bash
# fuse3 3.14.0 (Debian 12): fusermount3 refuses a user who has no entry in /etc/passwd: "could not determine username". In a container
# that is started with any uid (--user 54321) there is no such entry, and a file system that is mounted by fusermount3 needs one,
# besides /dev/fuse.
#
# Output seen:
#   uid 65534, which has an entry: mounted
#   uid 54321, which has none: fusermount3: could not determine username
# Needs root and /dev/fuse.
[ -n "${IN_NAMESPACE:-}" ] || IN_NAMESPACE=yes exec unshare -m bash "$0" # its mounts are its own
. "$(dirname "$0")/lib.sh"
unpack fuse3=3.14.0-4
chmod 755 "$work"
chmod 4755 "$debian/usr/bin/fusermount3" # setuid root, as its package makes it when it is installed
mknod "$work/fuse" c 10 229 # open to all, as udev makes it
chmod 666 "$work/fuse"
mount --bind "$work/fuse" /dev/fuse
mounted() { # as this uid, by the socket that libfuse gives to fusermount3
    mkdir "$work/$1"
    chown "$1" "$work/$1"
    timeout 30 python3 - "$(command -v fusermount3)" "$1" "$work/$1" <<'PY'
import os, socket, subprocess, sys
program, uid, mountpoint = sys.argv[1:]
ours, theirs = socket.socketpair()
command = [program, "-o", "rw,fsname=example", "--", mountpoint]
said = subprocess.run(command, env={"_FUSE_COMMFD": str(theirs.fileno())}, pass_fds=[theirs.fileno()], user=int(uid), group=int(uid),
                      extra_groups=[], stderr=subprocess.PIPE, text=True, timeout=20)
print(said.stderr.strip().removeprefix(os.path.dirname(program) + "/") or ("mounted" if os.path.ismount(mountpoint) or said.returncode == 0 else said.returncode))
PY
}
as_seen "uid 65534, which has an entry: $(mounted 65534)
uid 54321, which has none: $(mounted 54321)" "uid 65534, which has an entry: mounted
uid 54321, which has none: fusermount3: could not determine username" || exit 1
