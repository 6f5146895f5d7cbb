/* Plays prepared HTTP requests against a server on this machine and times the answers.
 *
 *   load PORT CONNECTIONS SECONDS WARM TIMEOUT REPEAT REQUESTS LENGTHS
 *
 * REQUESTS holds complete requests one after the other, LENGTHS their lengths as native 32-bit
 * integers. Each connection sends the next request of the file as soon as its last one is answered
 * (a closed loop). The clock starts after WARM answers and stops after SECONDS, or at the end of
 * the file; with REPEAT 1 the file starts again instead. TIMEOUT bounds the whole run.
 *
 * One JSON object on standard output: what was counted between start and stop, and `answered`,
 * `statuses` and `errors` of the whole run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX 16384

struct connection {
    int fd;
    int busy;          /* a request is under way */
    int wants_out;     /* registered for EPOLLOUT */
    size_t request;    /* its number in the file */
    uint32_t written;
    double began;
    size_t held;       /* bytes of the answer so far */
    char answer[ANSWER_MAX + 1];
};

static const char *requests;
static const uint32_t *lengths;
static size_t *offsets;
static size_t count, next;
static int repeat, epoll, port;
static size_t warm, answered, counted, errors, reconnects, capacity;
static size_t statuses[600];
static uint32_t *latencies;
static double started, stopped, seconds, give_up;

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "refused");
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static double processor(const struct rusage *usage) {
    return usage->ru_utime.tv_sec + usage->ru_utime.tv_usec / 1e6 + usage->ru_stime.tv_sec +
           usage->ru_stime.tv_usec / 1e6;
}

static void *map(const char *path, size_t *size) {
    struct stat about;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &about) < 0) die(path);
    *size = about.st_size;
    /* Populated, so that no page fault is taken for the server's latency. */
    void *memory = mmap(NULL, *size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED) die(path);
    close(fd);
    return memory;
}

static void watch(struct connection *c, int operation, int out) {
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(epoll, operation, c->fd, &event) < 0) die("epoll_ctl");
    c->wants_out = out;
}

static void dial(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0) die("fcntl");
    c->busy = 0;
    c->held = 0;
    watch(c, EPOLL_CTL_ADD, 0);
}

static void redial(struct connection *c) {
    close(c->fd);
    dial(c);
    reconnects++;
}

static void push(struct connection *c) {
    while (c->written < lengths[c->request]) {
        ssize_t sent = send(c->fd, requests + offsets[c->request] + c->written,
                            lengths[c->request] - c->written, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            /* The other errors show again, and are counted, when the answer is read. */
            if (errno == EAGAIN && !c->wants_out) watch(c, EPOLL_CTL_MOD, 1);
            return;
        }
        c->written += sent;
    }
    if (c->wants_out) watch(c, EPOLL_CTL_MOD, 0);
}

/* Begin the next request, if there is one to begin. */
static void begin(struct connection *c) {
    if (stopped) return;
    if (next == count) {
        if (!repeat) return;
        next = 0;
    }
    c->request = next++;
    c->written = 0;
    c->held = 0;
    c->busy = 1;
    c->began = now();
    push(c);
}

static void finish(struct connection *c, int status) {
    double at = now();
    answered++;
    statuses[status]++;
    c->busy = 0;
    if (!started) {
        if (answered >= warm) started = at;
    } else if (!stopped) {
        if (at - started >= seconds) {
            stopped = at;
        } else {
            if (counted == capacity) {
                capacity *= 2;
                latencies = realloc(latencies, capacity * sizeof *latencies);
                if (!latencies) die("memory");
            }
            latencies[counted++] = (uint32_t)((at - c->began) * 1e6);
        }
    }
}

static void fail(struct connection *c) {
    errors++;
    redial(c);
    begin(c);
}

/* Value of a header in a block of headers that ends with an empty line, or NULL. */
static const char *header(const char *block, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(block, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, length) && line[length] == ':') {
            for (line += length + 1; *line == ' '; line++) {}
            return line;
        }
    }
    return NULL;
}

static void pull(struct connection *c) {
    ssize_t got = recv(c->fd, c->answer + c->held, ANSWER_MAX - c->held, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        if (!c->busy) redial(c); /* an idle connection may be closed */
        else fail(c);
        return;
    }
    c->held += got;
    c->answer[c->held] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) {
        if (c->held == ANSWER_MAX) fail(c);
        return;
    }
    char saved = end[4];
    end[4] = 0;
    int status = strncmp(c->answer, "HTTP/1.", 7) ? 0 : atoi(c->answer + 9);
    const char *length = header(c->answer, "Content-Length");
    const char *connection = header(c->answer, "Connection");
    int closes = connection && !strncasecmp(connection, "close", 5);
    long body = length ? strtol(length, NULL, 10) : status == 204 ? 0 : -1;
    end[4] = saved;
    if (status < 100 || status > 599 || body < 0 || !c->busy) {
        fail(c);
        return;
    }
    if (c->held < (size_t)(end + 4 - c->answer) + body) {
        if (c->held == ANSWER_MAX) fail(c);
        return;
    }
    int whole = c->written == lengths[c->request];
    finish(c, status);
    if (closes || !whole) redial(c);
    begin(c);
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    if (!counted) return 0;
    size_t at = (size_t)(share * counted);
    return latencies[at < counted ? at : counted - 1];
}

int main(int argc, char **argv) {
    if (argc != 9) {
        fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS WARM TIMEOUT REPEAT "
                        "REQUESTS LENGTHS\n");
        return 2;
    }
    port = atoi(argv[1]);
    int connections = atoi(argv[2]);
    seconds = atof(argv[3]);
    warm = strtoul(argv[4], NULL, 10);
    give_up = now() + atof(argv[5]);
    repeat = atoi(argv[6]);
    size_t size, index_size, total = 0;
    requests = map(argv[7], &size);
    lengths = map(argv[8], &index_size);
    count = index_size / sizeof *lengths;
    offsets = malloc(count * sizeof *offsets);
    capacity = count + 1;
    latencies = malloc(capacity * sizeof *latencies);
    struct connection *all = calloc(connections, sizeof *all);
    struct epoll_event *events = calloc(connections, sizeof *events);
    if (!offsets || !latencies || !all || !events) die("memory");
    for (size_t i = 0; i < count; i++) {
        offsets[i] = total;
        total += lengths[i];
    }
    errno = 0;
    if (connections < 1 || !count || total != size) die("arguments");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1");
    for (int i = 0; i < connections; i++) dial(&all[i]);
    if (!warm) started = now();
    for (int i = 0; i < connections; i++) begin(&all[i]);

    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    double since = now(), last = since;
    for (;;) {
        int busy = 0;
        for (int i = 0; i < connections && !busy; i++) busy = all[i].busy;
        if (!busy) break;
        if (now() > give_up) {
            fprintf(stderr, "load: not finished in time: %zu of %zu answered\n", answered, count);
            return 1;
        }
        int ready = epoll_wait(epoll, events, connections, 1000);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            int fd = c->fd;
            if (events[i].events & EPOLLOUT) push(c);
            if (events[i].events & ~EPOLLOUT && c->fd == fd) pull(c);
        }
        last = now();
    }
    getrusage(RUSAGE_SELF, &after);
    if (!started) started = last;
    if (!stopped) stopped = last;
    double elapsed = stopped - started;
    double cpu = processor(&after) - processor(&before);
    qsort(latencies, counted, sizeof *latencies, ascending);
    printf("{\"requests\": %zu, \"seconds\": %.6f, \"rps\": %.1f, \"p50_us\": %.0f, "
           "\"p90_us\": %.0f, \"p99_us\": %.0f, \"max_us\": %.0f, \"answered\": %zu, "
           "\"errors\": %zu, \"reconnects\": %zu, \"busy\": %.3f, \"cpu\": %.3f, \"statuses\": {",
           counted, elapsed, elapsed > 0 ? counted / elapsed : 0, percentile(0.5),
           percentile(0.9), percentile(0.99), percentile(1), answered, errors, reconnects,
           last > since ? cpu / (last - since) : 0, processor(&after));
    const char *comma = "";
    for (int status = 0; status < 600; status++) {
        if (!statuses[status]) continue;
        printf("%s\"%d\": %zu", comma, status, statuses[status]);
        comma = ", ";
    }
    printf("}}\n");
    return 0;
}
