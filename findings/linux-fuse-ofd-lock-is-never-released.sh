#!/bin/bash
# Linux 6.18 with libfuse 3.14.0 (Debian 12): a FUSE file system that implements locks never learns that an open file description
# lock (fcntl(2), F_OFD_SETLK) ended with its description. At close() of a POSIX lock's file FLUSH names the owner of the lock, and
# libfuse turns that into an unlock of that owner. At close() of an OFD lock's file FLUSH names the process instead, RELEASE names
# no lock owner that libfuse would act on, and no SETLK with F_UNLCK comes. A file system that keeps locks by owner, as the
# protocol suggests, keeps such a lock for ever. It has to remember for each handle which owners locked through it.
#
# Output seen:
#   POSIX: LOCK FLUSH UNLOCK-by-its-owner RELEASE
#   OFD:   LOCK FLUSH UNLOCK-by-another-owner RELEASE
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
mkdir "$work/mount"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4
build <<'C'
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <string.h>
static unsigned long long owner;
static void say(const char *what) { printf("%s", what); fflush(stdout); }
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_mode = strcmp(path, "/") ? S_IFREG | 0644 : S_IFDIR | 0755;
  st->st_nlink = 1;
  return 0;
}
static int fs_open(const char *path, struct fuse_file_info *fi) { (void)path; (void)fi; return 0; }
static int fs_lock(const char *path, struct fuse_file_info *fi, int cmd, struct flock *lock) {
  (void)path; (void)cmd;
  if (lock->l_type != F_UNLCK) { owner = fi->lock_owner; say("LOCK "); }
  else say(fi->lock_owner == owner ? "UNLOCK-by-its-owner " : "UNLOCK-by-another-owner ");
  return 0;
}
static int fs_flush(const char *path, struct fuse_file_info *fi) { (void)path; (void)fi; say("FLUSH "); return 0; }
static int fs_release(const char *path, struct fuse_file_info *fi) { (void)path; (void)fi; say("RELEASE\n"); return 0; }
static const struct fuse_operations operations = {
  .getattr = fs_getattr, .open = fs_open, .lock = fs_lock, .flush = fs_flush, .release = fs_release};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
timeout 60 "$work/fs" -f "$work/mount" >"$work/seen" 2>/dev/null &
until_mounted "$work/mount"
timeout 20 python3 - "$work/mount/file" <<'PY'
import fcntl, os, struct, sys
for command in (fcntl.F_SETLK, 37):  # 37 is F_OFD_SETLK
    file = os.open(sys.argv[1], os.O_RDWR)
    fcntl.fcntl(file, command, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    os.close(file)
PY
umount "$work/mount"
wait
as_seen "$(paste -d ' ' <(printf 'POSIX:\nOFD:  \n') "$work/seen")" "POSIX: LOCK FLUSH UNLOCK-by-its-owner RELEASE
OFD:   LOCK FLUSH UNLOCK-by-another-owner RELEASE" || exit 1
