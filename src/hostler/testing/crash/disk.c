/* A disk that fills, breaks or forgets: stands between a process and what it writes to one folder.
 *
 * DISK_LAB_UNDER is the folder, DISK_LAB_SAYS a file whose first letter says what happens there:
 *   o  all is well            f  no space left
 *   s  half is written, then there is no space left
 *   e  writing is an error    y  syncing is an error
 * Built by the lab with the compiler that is there; loaded with LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char said(int fd) {
    const char *under = getenv("DISK_LAB_UNDER"), *says = getenv("DISK_LAB_SAYS");
    char link[64], path[PATH_MAX], letter = 'o';
    int before = errno;
    if (under == NULL || says == NULL) return 'o';
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        if (strncmp(path, under, strlen(under)) == 0) {
            int file = open(says, O_RDONLY | O_CLOEXEC);
            if (file >= 0) {
                if (read(file, &letter, 1) != 1) letter = 'o';
                close(file);
            }
        }
    }
    errno = before;
    return letter;
}

#define THE_REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (real == NULL) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define WRITES(size, written) \
    switch (said(fd)) { \
    case 'f': errno = ENOSPC; return -1; \
    case 'e': errno = EIO; return -1; \
    case 's': if ((size) < 2) { errno = ENOSPC; return -1; } \
              size = (size) / 2; break; \
    } \
    return written

ssize_t write(int fd, const void *data, size_t size) {
    THE_REAL(ssize_t, "write", int, const void *, size_t);
    WRITES(size, real(fd, data, size));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    THE_REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    WRITES(size, real(fd, data, size, at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    THE_REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    WRITES(size, real(fd, data, size, at));
}

#define SYNCS(name) \
    THE_REAL(int, name, int); \
    if (said(fd) == 'y') { errno = EIO; return -1; } \
    return real(fd)

int fsync(int fd) { SYNCS("fsync"); }

int fdatasync(int fd) { SYNCS("fdatasync"); }
