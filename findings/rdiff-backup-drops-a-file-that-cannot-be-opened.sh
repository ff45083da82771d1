#!/bin/bash
# rdiff-backup 2.2.2 (Debian 12): a changed file whose open() gives EIO is removed from the mirror, and the backup ends with status
# 0 (it prints one line about the file). The good copy is left only in the increments (restore --at). If the same file gives
# EREMOTEIO instead, which is not among the errors that it goes on after, the mirror keeps the file and the status is 1.
# An unreliable disk or network file system gives EIO, so the newest backup is without just the files that are in danger.
#
# Output seen:
#   EIO:       status 0, in the mirror: other
#   EREMOTEIO: status 1, in the mirror: file other
# Needs root and /dev/fuse.
. "$(dirname "$0")/lib.sh"
need rdiff-backup=2.2.2-1
mkdir "$work/mount"
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int is_broken(void) { return access(getenv("BROKEN"), F_OK) == 0; }
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_nlink = 1;
  st->st_mtime = 1700000000;
  if (!strcmp(path, "/")) { st->st_mode = S_IFDIR | 0755; return 0; }
  if (strcmp(path, "/file") && strcmp(path, "/other")) return -ENOENT;
  st->st_mode = S_IFREG | 0644;
  st->st_size = 5;
  if (!strcmp(path, "/file") && is_broken()) st->st_mtime += 100;
  return 0;
}
static int fs_open(const char *path, struct fuse_file_info *fi) {
  (void)fi;
  return !strcmp(path, "/file") && is_broken() ? -atoi(getenv("ERROR")) : 0;
}
static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags) {
  (void)path; (void)offset; (void)fi; (void)flags;
  fill(buffer, "file", NULL, 0, 0);
  fill(buffer, "other", NULL, 0, 0);
  return 0;
}
static int fs_read(const char *path, char *buffer, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path; (void)fi;
  if (offset >= 5) return 0;
  if (offset + size > 5) size = 5 - offset;
  memcpy(buffer, "good\n" + offset, size);
  return size;
}
static const struct fuse_operations operations = {
  .getattr = fs_getattr, .open = fs_open, .readdir = fs_readdir, .read = fs_read};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
seen=""
for error in EIO:5 EREMOTEIO:121; do
    rm -rf "$work/broken" "$work/backup"
    ERROR=${error#*:} BROKEN="$work/broken" timeout 100 "$work/fs" -f -o attr_timeout=0,entry_timeout=0 "$work/mount" >/dev/null 2>&1 &
    until_mounted "$work/mount"
    timeout 60 rdiff-backup --api-version 201 backup "$work/mount" "$work/backup" >/dev/null 2>&1
    sleep 1.1 # two backups of one second are refused
    touch "$work/broken"
    status=0
    timeout 60 rdiff-backup --api-version 201 backup "$work/mount" "$work/backup" >/dev/null 2>&1 || status=$?
    names=$(cd "$work/backup" && echo *)
    seen="$seen${error%:*}: status $status, in the mirror: ${names/rdiff-backup-data/}
"
    umount "$work/mount"
    wait
done
as_seen "$(tr -s ' ' <<<"$seen" | sed 's/ $//')" "EIO: status 0, in the mirror: other
EREMOTEIO: status 1, in the mirror: file other" || exit 1
