/* What the machine can do at the least cost: a replicated log without fencing, recovery, checksums or readers.
 *
 *   floor follower PORT FILE MODE
 *   floor leader   PORT FILE MODE PORT-OF-A-FOLLOWER PORT-OF-THE-OTHER
 *
 * A client sends records (u32 length, bytes) and is told how many of all of them are on two disks of three (u64). What
 * has arrived is one group: sent to both followers, then one write and one fdatasync here and there, acknowledged when
 * the leader's and one follower's are done. MODE is `direct` (a file that was written before, O_DIRECT, used again
 * from its start) or `growing` (an ordinary file that gets longer). Numbers are in the byte order of the machine. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK = 4096, GROUP_MAX = 8 << 20, DIRECT_BYTES = 256 << 20 };
#define GROWING_BYTES (4LL << 30) /* then it begins anew: the disk has an end */

static int file, direct;
static off_t at;

static void check(int ok, const char *what) {
    if (!ok) { fprintf(stderr, "floor: %s: %s\n", what, errno ? strerror(errno) : "the other side has gone"); exit(1); }
}

static void move_all(int fd, char *bytes, size_t left, ssize_t (*move)(int, char *, size_t), const char *what) {
    while (left > 0) {
        errno = 0;
        ssize_t moved = move(fd, bytes, left);
        check(moved > 0, what);
        bytes += moved;
        left -= moved;
    }
}
static ssize_t put(int fd, char *bytes, size_t n) { return write(fd, bytes, n); }
static ssize_t get(int fd, char *bytes, size_t n) { return read(fd, bytes, n); }

static void open_file(const char *path, char *group) {
    file = open(path, O_RDWR | O_CREAT | O_TRUNC | (direct ? O_DIRECT : 0), 0600);
    check(file >= 0, path);
    for (at = 0; direct && at < DIRECT_BYTES; at += 1 << 20)
        check(pwrite(file, group, 1 << 20, at) == 1 << 20, "writing ahead");
    check(fsync(file) == 0, "fsync");
    at = 0;
}

/* One write and one fdatasync. */
static void store(char *group, size_t bytes) {
    if (direct) bytes = (bytes + BLOCK - 1) / BLOCK * BLOCK;
    if (at + (off_t)bytes > (direct ? DIRECT_BYTES : GROWING_BYTES)) {
        at = 0;
        check(direct || ftruncate(file, 0) == 0, "ftruncate");
    }
    check(pwrite(file, group, bytes, at) == (ssize_t)bytes, "write");
    check(fdatasync(file) == 0, "fdatasync");
    at += bytes;
}

static int endpoint(const char *port, int listens) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!listens) { check(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect"); return fd; }
    check(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 8) == 0, "listen");
    printf("ready\n");
    fflush(stdout);
    return fd;
}

static int next_peer(int listener) {
    int one = 1, fd = accept(listener, NULL, NULL);
    check(fd >= 0, "accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void follow(int leader, char *group) {
    for (uint64_t groups = 1;; groups++) {
        uint64_t bytes;
        move_all(leader, (char *)&bytes, sizeof bytes, get, "a group's length");
        check(bytes <= GROUP_MAX, "a group's length");
        move_all(leader, group, bytes, get, "a group");
        store(group, bytes);
        move_all(leader, (char *)&groups, sizeof groups, put, "an acknowledgement");
    }
}

/* One client after the other; `groups` counts on, as the followers do. */
static void serve(int client, int followers[2], char *group, uint64_t *groups) {
    static uint64_t stored[2];
    uint64_t records = 0;
    for (size_t filled = 0;;) {
        ssize_t got = read(client, group + filled, GROUP_MAX - filled);
        if (got <= 0) return;
        filled += got;
        uint64_t whole = 0;
        for (uint32_t length; filled - whole >= sizeof length; records++, whole += sizeof length + length) {
            memcpy(&length, group + whole, sizeof length);
            check(length <= GROUP_MAX / 2, "a record's length");
            if (filled - whole < sizeof length + length) break;
        }
        if (whole == 0) continue;
        ++*groups;
        for (int i = 0; i < 2; i++) {
            move_all(followers[i], (char *)&whole, sizeof whole, put, "a group to a follower");
            move_all(followers[i], group, whole, put, "a group to a follower");
        }
        store(group, whole);
        while (stored[0] < *groups && stored[1] < *groups) {
            struct pollfd ready[2] = {{followers[0], POLLIN, 0}, {followers[1], POLLIN, 0}};
            check(poll(ready, 2, -1) > 0, "poll");
            for (int i = 0; i < 2; i++)
                if (ready[i].revents) move_all(followers[i], (char *)&stored[i], sizeof stored[i], get, "a follower");
        }
        if (send(client, &records, sizeof records, MSG_NOSIGNAL) != sizeof records) return;
        memmove(group, group + whole, filled -= whole);
    }
}

int main(int count, char **arguments) {
    char *group;
    uint64_t groups = 0;
    int leads = count == 7 && !strcmp(arguments[1], "leader");
    check(leads || count == 5, "usage: floor follower PORT FILE MODE | floor leader PORT FILE MODE PORT PORT");
    direct = !strcmp(arguments[4], "direct");
    check(posix_memalign((void **)&group, BLOCK, GROUP_MAX + BLOCK) == 0, "memory");
    memset(group, 0, GROUP_MAX + BLOCK);
    open_file(arguments[3], group);
    int followers[2] = {leads ? endpoint(arguments[5], 0) : -1, leads ? endpoint(arguments[6], 0) : -1};
    int listener = endpoint(arguments[2], 1);
    for (;;) {
        int peer = next_peer(listener);
        if (leads) serve(peer, followers, group, &groups);
        else follow(peer, group);
        close(peer);
    }
}
