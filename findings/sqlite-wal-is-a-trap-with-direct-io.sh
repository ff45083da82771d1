#!/bin/bash
# Linux 6.18, libfuse 3.14.0 with direct_io, SQLite 3.40.1 (Debian 12): PRAGMA journal_mode=WAL answers "wal" and has made the database
# unusable: each statement from then on fails with "disk I/O error", also of a program that opens it later and asks for another mode.
# Only the first statement maps the shared memory of the log, and a shared mapping of a file that was opened with direct_io is
# ENODEV. Whoever tries WAL "if it is supported" and looks at the answer is told that it is. PRAGMA locking_mode=EXCLUSIVE before
# the first statement (no shared memory then) gets the database out of it again.
#
# Output seen:
#   journal_mode=WAL: wal
#   CREATE TABLE: disk I/O error
#   opened again, journal_mode=DELETE: disk I/O error
#   opened again, locking_mode=EXCLUSIVE, journal_mode=DELETE: delete
#   opened again, CREATE TABLE: done
# Needs root and /dev/fuse.
# Versions: libpython3.11-stdlib 3.11.2-6+deb12u6, python3.11 3.11.2-6+deb12u6, libfuse3-3 3.14.0-4, libfuse3-dev 3.14.0-4,
# libsqlite3-0 3.40.1-2+deb12u2.
. "$(dirname "$0")/lib.sh"
need libpython3.11-stdlib=3.11.2-6+deb12u6 python3.11=3.11.2-6+deb12u6
unpack libfuse3-3=3.14.0-4 libfuse3-dev=3.14.0-4 libsqlite3-0=3.40.1-2+deb12u2
mkdir "$work/files" "$work/mount"
{ printf '#define FILES "%s/files"\n' "$work"; cat <<'C'; } | build
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static const char *below(const char *path) {
  static _Thread_local char name[4096];
  snprintf(name, sizeof name, FILES "%s", path);
  return name;
}
static int result(int of) { return of < 0 ? -errno : 0; }
static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi) { (void)fi; return result(lstat(below(path), st)); }
static int fs_unlink(const char *path) { return result(unlink(below(path))); }
static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi) { (void)fi; return result(truncate(below(path), size)); }
static int fs_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi) { (void)fi; return result(lchown(below(path), uid, gid)); }
static int fs_open(const char *path, struct fuse_file_info *fi) {
  int file = open(below(path), fi->flags & ~O_EXCL, 0644);
  fi->fh = file;
  fi->direct_io = 1;
  return result(file);
}
static int fs_create(const char *path, mode_t mode, struct fuse_file_info *fi) { (void)mode; fi->flags |= O_CREAT; return fs_open(path, fi); }
static int fs_read(const char *path, char *to, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path;
  ssize_t done = pread(fi->fh, to, size, offset);
  return done < 0 ? -errno : done;
}
static int fs_write(const char *path, const char *from, size_t size, off_t offset, struct fuse_file_info *fi) {
  (void)path;
  ssize_t done = pwrite(fi->fh, from, size, offset);
  return done < 0 ? -errno : done;
}
static int fs_release(const char *path, struct fuse_file_info *fi) { (void)path; return result(close(fi->fh)); }
static const struct fuse_operations operations = {.getattr = fs_getattr, .unlink = fs_unlink, .truncate = fs_truncate, .chown = fs_chown,
  .open = fs_open, .create = fs_create, .read = fs_read, .write = fs_write, .release = fs_release};
int main(int argc, char **argv) { return fuse_main(argc, argv, &operations, NULL); }
C
timeout 100 "$work/fs" -f "$work/mount" 2>/dev/null &
until_mounted "$work/mount"
seen=$(timeout 60 /usr/bin/python3.11 - "$work/mount/database" <<'PY'
import sqlite3, sys

def opened() -> sqlite3.Connection:
    return sqlite3.connect(sys.argv[1], isolation_level=None)

def outcome(connection: sqlite3.Connection, statement: str) -> str:
    try:
        row = connection.execute(statement).fetchone()
        return row[0] if row else "done"
    except sqlite3.OperationalError as error:
        return str(error)

one = opened()
print("journal_mode=WAL:", outcome(one, "PRAGMA journal_mode=WAL"))
print("CREATE TABLE:", outcome(one, "CREATE TABLE t (value)"))
one.close()
one = opened()
print("opened again, journal_mode=DELETE:", outcome(one, "PRAGMA journal_mode=DELETE"))
one.close()
one = opened()
one.execute("PRAGMA locking_mode=EXCLUSIVE")
print("opened again, locking_mode=EXCLUSIVE, journal_mode=DELETE:", outcome(one, "PRAGMA journal_mode=DELETE"))
one.close()
print("opened again, CREATE TABLE:", outcome(opened(), "CREATE TABLE t (value)"))
PY
)
umount "$work/mount"
wait
as_seen "$seen" "journal_mode=WAL: wal
CREATE TABLE: disk I/O error
opened again, journal_mode=DELETE: disk I/O error
opened again, locking_mode=EXCLUSIVE, journal_mode=DELETE: delete
opened again, CREATE TABLE: done" || exit 1
