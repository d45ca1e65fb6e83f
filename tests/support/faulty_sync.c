/* Loaded before the C library, this lets a test fail or hold up fsync and fdatasync.

   In the folder $FAULTS_FOLDER:
     fail    the next sync of a file whose path contains the text in here fails with EIO;
             then the file is gone, and all later ones succeed, as on Linux after an error
     hold    for as long as this exists no sync returns
     calls   written here: a line for each sync, its outcome and the path of the file
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *in_folder(char *path, size_t size, const char *name) {
    snprintf(path, size, "%s/%s", getenv("FAULTS_FOLDER"), name);
    return path;
}

static int is_to_fail(const char *synced) {
    char path[4096], wanted[4096];
    int fd = open(in_folder(path, sizeof path, "fail"), O_RDONLY);
    if (fd < 0) return 0;
    ssize_t size = read(fd, wanted, sizeof wanted - 1);
    close(fd);
    if (size < 0) return 0;
    wanted[size] = 0;
    return strstr(synced, wanted) != NULL && unlink(path) == 0;
}

static int faulty(const char *function, int fd) {
    char path[4096], link[64], synced[4096], line[4200];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, synced, sizeof synced - 1);
    synced[size < 0 ? 0 : size] = 0;

    while (access(in_folder(path, sizeof path, "hold"), F_OK) == 0) usleep(2000);
    int failed = is_to_fail(synced);

    int calls = open(in_folder(path, sizeof path, "calls"), O_WRONLY | O_CREAT | O_APPEND, 0644);
    int length = snprintf(line, sizeof line, "%s %s\n", failed ? "failed" : "done", synced);
    if (write(calls, line, length) < 0) abort();
    close(calls);

    if (failed) {
        errno = EIO;
        return -1;
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, function))(fd);
}

int fsync(int fd) { return faulty("fsync", fd); }
int fdatasync(int fd) { return faulty("fdatasync", fd); }
