/* A layer under a process (LD_PRELOAD): sees every change that it makes to files below one folder, and can kill the
 * process just before any of them.
 *
 *   watch(folder, trace)   from now on changes below `folder` are counted, and written to the descriptor `trace`
 *                          (if it is not -1) before they are made
 *   die_at(k)              SIGKILL instead of change k (counted from 0); of a write, half is made first
 *
 * A record of the trace: op, length of path, length of second path or data, offset or length; then path and data.
 * What is written to files whose name ends in ".said" is traced, and never counted: there the process says what it has
 * done. Neither is what happens to SQLite's "-shm", which is memory and made anew after a crash. For one thread.
 *
 * fsync and fdatasync do nothing but be noted: a process that is killed loses nothing by that, and the model of a disk that
 * forgets (disk_model.py) goes by the trace. It makes a run many times faster.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char prefix[PATH_MAX];
static size_t prefix_length;
static int trace = -1;
static long changes, last = -1;

struct __attribute__((packed)) record {
    char op;
    uint32_t path_length;
    uint32_t data_length;
    uint64_t number;
};

void watch(const char *folder, int trace_descriptor) {
    strncpy(prefix, folder, sizeof prefix - 1);
    prefix_length = strlen(prefix);
    trace = trace_descriptor;
    changes = 0;
}

void die_at(long k) { last = k; }

static int is_watched(const char *path) {
    return prefix_length && !strncmp(path, prefix, prefix_length) && (path[prefix_length] == '/' || !path[prefix_length]);
}

static const char *path_of(int fd, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0)
        return NULL;
    buffer[length] = 0;
    return is_watched(buffer) ? buffer : NULL;
}

static void put(const void *data, size_t length) {
    while (length) {
        ssize_t written = syscall(SYS_write, trace, data, length);
        if (written <= 0)
            abort();
        data = (const char *)data + written;
        length -= written;
    }
}

/* Whether the process is to die here. */
static int note(char op, const char *path, const void *data, size_t data_length, uint64_t number) {
    size_t length = strlen(path);
    if (trace >= 0) {
        struct record record = {op, length, data_length, number};
        put(&record, sizeof record);
        put(path, length);
        put(data, data_length);
    }
    if (length > 5 && (!strcmp(path + length - 5, ".said") || !strcmp(path + length - 4, "-shm")))
        return 0;
    return changes++ == last;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void change(char op, const char *path, const char *second, uint64_t number) {
    if (note(op, path, second, second ? strlen(second) : 0, number))
        die();
}

#define REAL(name, ...) ((int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))

static void opening(const char *path, int flags) {
    if (!is_watched(path) || !(flags & (O_CREAT | O_TRUNC)))
        return;
    struct stat status;
    int is_there = stat(path, &status) == 0;
    if (is_there && (flags & O_TRUNC) && status.st_size)
        change('t', path, NULL, 0);
    if (!is_there && (flags & O_CREAT))
        change('c', path, NULL, 0);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = va_arg(rest, mode_t);                                                                            \
        va_end(rest);                                                                                                  \
        opening(path, flags);                                                                                          \
        return REAL(name, const char *, int, ...)(path, flags, mode);                                                  \
    }
OPEN(open)
OPEN(open64)

static ssize_t writing(int fd, const void *data, size_t length, off_t offset, int is_positioned) {
    char buffer[PATH_MAX];
    const char *path = path_of(fd, buffer);
    if (path) {
        off_t at = offset;
        if (!is_positioned)
            at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
        if (note('w', path, data, length, at)) {
            if (is_positioned)
                syscall(SYS_pwrite64, fd, data, length / 2, at);
            else
                syscall(SYS_write, fd, data, length / 2);
            die();
        }
    }
    ssize_t done = is_positioned ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
    if (path && done != (ssize_t)length)
        abort(); /* the trace would be wrong */
    return done;
}

ssize_t write(int fd, const void *data, size_t length) { return writing(fd, data, length, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return writing(fd, data, length, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return writing(fd, data, length, offset, 1); }

static void cutting(int fd, off_t length) {
    char buffer[PATH_MAX];
    const char *path = path_of(fd, buffer);
    if (path)
        change('t', path, NULL, length);
}
int ftruncate(int fd, off_t length) {
    cutting(fd, length);
    return syscall(SYS_ftruncate, fd, length);
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

static int syncing(int fd) {
    char buffer[PATH_MAX];
    const char *path = path_of(fd, buffer);
    if (path)
        change('f', path, NULL, 0);
    return 0;
}
int fsync(int fd) { return syncing(fd); }
int fdatasync(int fd) { return syncing(fd); }

int rename(const char *from, const char *to) {
    if (is_watched(from))
        change('r', from, to, 0);
    return syscall(SYS_rename, from, to);
}
int unlink(const char *path) {
    struct stat status;
    if (is_watched(path) && lstat(path, &status) == 0)
        change('u', path, NULL, 0);
    return syscall(SYS_unlink, path);
}
int mkdir(const char *path, mode_t mode) {
    struct stat status;
    if (is_watched(path) && stat(path, &status) != 0)
        change('d', path, NULL, 0);
    return syscall(SYS_mkdir, path, mode);
}
