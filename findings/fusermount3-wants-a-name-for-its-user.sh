#!/bin/bash
# fuse3 3.14.0 (Debian 12): fusermount3 refuses a user who has no entry in /etc/passwd: "could not determine username". In a container
# that is started with any uid (--user 54321) there is no such entry, and a file system that is mounted by fusermount3 needs one,
# besides /dev/fuse.
#
# Output seen:
#   uid 65534, which has an entry: mounted
#   uid 54321, which has none: fusermount3: could not determine username
# Needs root and /dev/fuse. Exit 0: as seen. exit 1: it behaves differently now.
set -eu
command -v gcc pkg-config fusermount3 setpriv >/dev/null && pkg-config fuse3 2>/dev/null || {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends gcc libc6-dev pkg-config fuse3 libfuse3-dev util-linux >/dev/null
}
if [ -z "${IN_NAMESPACE:-}" ]; then
    IN_NAMESPACE=yes exec unshare -m bash "$0" # its mounts are its own
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mknod "$work/fuse" c 10 229 # open to all, as udev makes it
chmod 666 "$work/fuse"
mount --bind "$work/fuse" /dev/fuse
cat >"$work/fs.c" <<'C'
#define FUSE_USE_VERSION 31
#include <fuse.h>
static const struct fuse_operations operations;
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
gcc -Wall -o "$work/fs" "$work/fs.c" $(pkg-config --cflags --libs fuse3)
mounted() { # as this uid
    mkdir "$work/$1"
    chown "$1" "$work/$1"
    timeout 20 setpriv --reuid="$1" --regid="$1" --clear-groups "$work/fs" -f "$work/$1" 2>"$work/said" &
    for _ in $(seq 50); do
        if grep -q " $work/$1 " /proc/mounts; then echo mounted; umount -l "$work/$1"; wait; return; fi
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    grep fusermount3 "$work/said" || true
}
seen="uid 65534, which has an entry: $(mounted 65534)
uid 54321, which has none: $(mounted 54321)"
echo "$seen"
umount /dev/fuse
[ "$seen" = "uid 65534, which has an entry: mounted
uid 54321, which has none: fusermount3: could not determine username" ] || { echo "it behaves differently now"; exit 1; }
