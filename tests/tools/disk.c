/* The disk under a database, as a test wants it to be.
 *
 * Loaded into the daemon with LD_PRELOAD. Whoever writes to emccd.db or a file that belongs to it gets the error whose
 * number is in the file `disk-says` in the same folder; without that file everything goes its way. So a file system can
 * turn read-only under a daemon that has its files open, which `mount -o remount,ro` refuses and only the kernel does
 * when it has found an error.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* What the disk says to who writes to that file; 0: nothing. */
static int at_path(const char *path) {
    const char *base = strrchr(path, '/');
    if (base == NULL || strncmp(base + 1, "emccd.db", strlen("emccd.db")) != 0)
        return 0;
    char flag[PATH_MAX + 16], text[16] = {0};
    if (base - path >= PATH_MAX)
        return 0;
    snprintf(flag, sizeof flag, "%.*s/disk-says", (int)(base - path), path);
    long fd = syscall(SYS_openat, AT_FDCWD, flag, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    return length > 0 ? atoi(text) : 0;
}

static int at_file(int fd) {
    char link[32], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0)
        return 0;
    path[length] = 0;
    return at_path(path);
}

/* Whether it refuses; errno says why then. */
static int refuses(int says) {
    if (says == 0)
        return 0;
    errno = says;
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    return refuses(at_file(fd)) ? -1 : REAL(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return refuses(at_file(fd)) ? -1 : REAL(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return refuses(at_file(fd)) ? -1 : REAL(pwrite64)(fd, bytes, count, at);
}

int ftruncate(int fd, off_t length) {
    return refuses(at_file(fd)) ? -1 : REAL(ftruncate)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
    return refuses(at_file(fd)) ? -1 : REAL(ftruncate64)(fd, length);
}

int access(const char *path, int mode) {
    return (mode & W_OK) && refuses(at_path(path)) ? -1 : REAL(access)(path, mode);
}

static int opens_to_write(int flags) {
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    if (opens_to_write(flags) && refuses(at_path(path)))
        return -1;
    return REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    if (opens_to_write(flags) && refuses(at_path(path)))
        return -1;
    return REAL(open64)(path, flags, mode);
}
