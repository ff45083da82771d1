#!/bin/bash
# Linux 6.18 with libfuse 3.14.0 (Debian 12), coreutils 9.1, findutils 4.9, tar 1.34: with FUSE_READDIRPLUS_AUTO, which libfuse asks for by
# default, a walk that needs attributes gets them with the first buffer of names only. The kernel goes on with READDIRPLUS only
# if a name of the buffer before was looked up meanwhile. `ls -l` does that; du, find, cp -r, tar and rm -r read a whole folder
# before they look at the first name, so nearly every file costs a LOOKUP of its own. Without the AUTO flag none does.
#
# Output seen (a folder of 10,000 files, names and attributes kept for 60 s):
#              LOOKUPs with AUTO   without
#   ls -l                      0         0
#   du -s                   9796         0
#   find -size              9796         0
#   tar                     9796         0
# Needs root and /dev/fuse.
# Versions: libfuse3-3 3.14.0-4, libfuse3-dev 3.14.0-4, coreutils 9.1-1, findutils 4.9.0-4, tar 1.34+dfsg-1.2+deb12u1.
. "$(dirname "$0")/lib.sh"
mkdir "$work/mount"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4 coreutils=9.1-1 findutils=4.9.0-4 tar=1.34+dfsg-1.2+deb12u1
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_mode = strcmp(path, "/") ? S_IFREG | 0644 : S_IFDIR | 0755;
  st->st_nlink = strcmp(path, "/") ? 1 : 2;
  return 0;
}
static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags) {
  (void)path; (void)fi; (void)flags;
  for (off_t at = offset; at < 10000; at++) {
    char name[32];
    struct stat st;
    snprintf(name, sizeof name, "file%ld", (long)at);
    fs_getattr(name, &st, NULL);
    if (fill(buffer, name, &st, at + 1, FUSE_FILL_DIR_PLUS)) break;
  }
  return 0;
}
static void *fs_init(struct fuse_conn_info *connection, struct fuse_config *config) {
  if (getenv("WITHOUT_AUTO")) connection->want &= ~FUSE_CAP_READDIRPLUS_AUTO;
  config->entry_timeout = config->attr_timeout = 60;
  return NULL;
}
static const struct fuse_operations operations = {.init = fs_init, .getattr = fs_getattr, .readdir = fs_readdir};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
lookups() { # environment, program...
    local environment=$1
    shift
    env $environment timeout 60 "$work/fs" -d "$work/mount" 2>"$work/trace" &
    until_mounted "$work/mount"
    timeout 50 "$@" >/dev/null 2>&1
    umount "$work/mount"
    wait
    grep -c 'opcode: LOOKUP' "$work/trace" || true
}
echo "             LOOKUPs with AUTO   without"
bad=0
while read -r name low high program; do
    auto=$(lookups A=1 $program)
    without=$(lookups WITHOUT_AUTO=1 $program)
    printf '%-12s %17s %9s\n' "$name" "$auto" "$without"
    { [ "$auto" -ge "$low" ] && [ "$auto" -le "$high" ] && [ "$without" = 0 ]; } || bad=1
done <<PROGRAMS
ls-l 0 0 ls -l $work/mount
du-s 9000 10000 du -s $work/mount
find-size 9000 10000 find $work/mount -size +1
tar 9000 10000 tar -cf $work/archive $work/mount
PROGRAMS
[ "$bad" = 0 ] || differs
