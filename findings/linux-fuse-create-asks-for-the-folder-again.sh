#!/bin/bash
# Linux 6.18 with libfuse 3.14.0 (Debian 12): if the kernel checks permissions (-o default_permissions), each new file costs a GETATTR of
# its folder besides LOOKUP and CREATE, however long the file system lets attributes be kept (here 60 s): a third of all requests.
# A new name changes the folder's times, so the kernel drops the folder's attributes after each CREATE, and needs its mode and owner
# again for the next one. The answer to CREATE has no room for the folder's attributes. Where the file system checks permissions
# itself, nobody asks.
#
# Output seen (requests for the folder while 100 files are created in it):
#   -o default_permissions: LOOKUP 100 CREATE 100 GETATTR 101
#   without it:             LOOKUP 100 CREATE 100 GETATTR 2
# Needs root and /dev/fuse.
# Versions: libfuse3-3 3.14.0-4, libfuse3-dev 3.14.0-4.
. "$(dirname "$0")/lib.sh"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4
mkdir "$work/mount"
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  int is_root = !strcmp(path, "/");
  memset(st, 0, sizeof *st);
  if (!is_root && !fi) return -ENOENT;
  st->st_mode = is_root ? S_IFDIR | 0755 : S_IFREG | 0644;
  st->st_nlink = 1;
  return 0;
}
static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi) { (void)path; (void)mode; (void)fi; return 0; }
static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config) {
  (void)connection;
  config->entry_timeout = config->attr_timeout = 60;
  return NULL;
}
static const struct fuse_operations operations = {.init = fs_init, .getattr = fs_getattr, .create = fs_create};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
requests() { # options of the mount
    timeout 60 "$work/fs" -d "$@" "$work/mount" 2>"$work/trace" &
    until_mounted "$work/mount"
    timeout 50 python3 - "$work/mount" <<'PY'
import os, sys
for number in range(100):
    os.close(os.open(f"{sys.argv[1]}/file{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
PY
    umount "$work/mount"
    wait
    for name in LOOKUP CREATE GETATTR; do
        printf ' %s %s' "$name" "$(grep -c "opcode: $name .*nodeid: 1," "$work/trace" || true)"
    done
}
as_seen "-o default_permissions:$(requests -o default_permissions)
without it:            $(requests)" "-o default_permissions: LOOKUP 100 CREATE 100 GETATTR 101
without it:             LOOKUP 100 CREATE 100 GETATTR 2" || exit 1
