/* A layer under a process (LD_PRELOAD) that counts how often it waits for the disk: fsync and fdatasync, whoever calls
 * them, SQLite included. It does not pass them on: a count needs no disk, and nothing of what is written is kept.
 *
 *   fsyncs_made()   how many there were
 */
static long made;

long fsyncs_made(void) { return made; }

static int syncing(void) {
    __atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
    return 0;
}
int fsync(int fd) { return (void)fd, syncing(); }
int fdatasync(int fd) { return (void)fd, syncing(); }
int sync_file_range(int fd, long offset, long length, unsigned flags) {
    return (void)fd, (void)offset, (void)length, (void)flags, syncing();
}
int syncfs(int fd) { return (void)fd, syncing(); }
