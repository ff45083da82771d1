#!/bin/bash
# A file system that says only at close() that what was written has no room (ENOSPC): network file systems do so, as close(2) warns.
# Which programs end with status 0? (Debian 12.) Most tell: cp, mv, cat, tee, dd, sort, tar, cpio, gzip, zstd, rsync, curl, wget, git,
# gcc, ld, ar, node, rclone, restic, rdiff-backup, duplicity.
#
#   bash 5.2 and dash 0.5.12     echo text >file: no word, the shell closes it and does not look
#   unzip 6.0                    no word
#   openssl 3.0.19               rand -out, base64 -out: no word
#   busybox 1.35 tar             no word
#   fio 3.33                     "err= 0"
#
# A script that has to know writes with `cat >file` or dd.
# Needs root and /dev/fuse.
# Versions: bash 5.2.15-2+b8, dash 0.5.12-2, unzip 6.0-28+deb12u1, openssl 3.0.19-1~deb12u2, libssl3 3.0.19-1~deb12u2, fio 3.33-3,
# libfuse3-3 3.14.0-4, libfuse3-dev 3.14.0-4, busybox 1:1.35.0-4+deb12u1+b1.
. "$(dirname "$0")/lib.sh"
need bash=5.2.15-2+b8 dash=0.5.12-2 unzip=6.0-28+deb12u1 openssl=3.0.19-1~deb12u2 libssl3=3.0.19-1~deb12u2 fio=3.33-3 zip
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4 busybox=1:1.35.0-4+deb12u1+b1
build <<'C'
#include <errno.h>
#include <fuse.h>
#include <stdlib.h>
#include <string.h>
#define FILES 1000
static char *names[FILES]; /* whatever is made is a file; nothing is kept of it but its name and size */
static off_t sizes[FILES];
static int number_of(const char *path) {
  for (int number = 0; number < FILES && names[number]; number++)
    if (!strcmp(names[number], path)) return number;
  return -1;
}
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) {
  int number = number_of(path);
  (void)fi;
  memset(st, 0, sizeof *st);
  st->st_nlink = 1;
  st->st_mode = S_IFDIR | 0755;
  if (!strcmp(path, "/")) return 0;
  if (number < 0) return -ENOENT;
  st->st_mode = S_IFREG | 0644;
  st->st_size = sizes[number];
  return 0;
}
static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi) {
  (void)mode; (void)fi;
  for (int number = 0; number < FILES; number++)
    if (!names[number]) { names[number] = strdup(path); return 0; }
  return -ENOSPC;
}
static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi) { (void)fi; sizes[number_of(path)] = size; return 0; }
static int fs_write(const char *path, const char *from, size_t size, off_t offset, struct fuse_file_info *fi) {
  off_t *known = &sizes[number_of(path)];
  (void)from; (void)fi;
  if (offset + (off_t)size > *known) *known = offset + size;
  return size;
}
static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *fi) { (void)path; (void)mode; (void)fi; return 0; }
static int fs_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi) { (void)path; (void)uid; (void)gid; (void)fi; return 0; }
static int fs_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi) { (void)path; (void)times; (void)fi; return 0; }
static int fs_flush(const char *path, struct fuse_file_info *fi) { (void)fi; return sizes[number_of(path)] ? -ENOSPC : 0; }
static const struct fuse_operations operations = {.getattr = fs_getattr, .create = fs_create, .truncate = fs_truncate, .write = fs_write,
  .chmod = fs_chmod, .chown = fs_chown, .utimens = fs_utimens, .flush = fs_flush};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
cd "$work"
mkdir mount
timeout 200 ./fs -s -f mount 2>/dev/null &
until_mounted mount
seq 1000 >unzipped
seq 1000 >untarred
zip -q archive.zip unzipped
tar -cf archive.tar untarred
seen=""
try() { # name, then a shell line that writes a file in the mount
    local name=$1 status=0 said
    said=$(cd mount && timeout 60 bash -c "$2" 2>&1) || status=$?
    seen="$seen$name: status $status${said:+, it says so}
"
}
try cat 'cat ../unzipped >file1'
try bash 'echo text >file2'
try dash 'dash -c "echo text >file3"'
try unzip 'unzip -q ../archive.zip'
try 'openssl rand' 'openssl rand -out file4 1000'
try 'openssl base64' 'openssl base64 -in ../unzipped -out file5'
try 'busybox tar' 'busybox tar -xf ../archive.tar'
try fio 'fio --name=job --filename=file6 --rw=write --bs=4k --size=64k --output=../fio.out'
seen="$seen$(grep -o 'err= *[0-9]*' fio.out)"
umount mount
wait
as_seen "$seen" "cat: status 1, it says so
bash: status 0
dash: status 0
unzip: status 0
openssl rand: status 0
openssl base64: status 0
busybox tar: status 0
fio: status 0
err= 0" || exit 1
