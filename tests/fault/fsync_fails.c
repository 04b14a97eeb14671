/* LD_PRELOAD: while the file FAIL_FSYNC is there, fsync of the guard's file is an I/O error, and every such call a byte in it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    char link[64], name[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, name, sizeof name - 1) > 0 && strstr(name, "guard.json")) {
        int mark = open(getenv("FAIL_FSYNC"), O_WRONLY | O_APPEND);
        if (mark >= 0) {
            ssize_t written = write(mark, ".", 1);
            close(mark);
            errno = written == 1 ? EIO : EINVAL;
            return -1;
        }
    }
    return real(fd);
}
