/* A wall clock that is ahead, for tests/clock.py, loaded with LD_PRELOAD.
 *
 * Only the wall clock moves: CLOCK_REALTIME, and the times of files, which the kernel takes from
 * its own clock. Waits and timeouts use CLOCK_MONOTONIC and keep their length. The shift, in
 * nanoseconds, is read from a mapped file at each call, so that a clock can jump while its process
 * runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
/* The function that the one here stands in front of, looked up once. */
#define REAL(name) \
    ({ static __typeof__(&name) real_; if (!real_) real_ = dlsym(RTLD_NEXT, #name); real_; })

static const volatile int64_t *shift;

__attribute__((constructor)) static void open_shift(void) {
    const char *path = getenv("TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED) shift = map;
}

static void move(int64_t sign, time_t *seconds, int64_t *nanoseconds) {
    int64_t total = *nanoseconds + sign * (shift ? *shift : 0);
    int64_t rest = total % SECOND;
    if (rest < 0) rest += SECOND;
    *seconds += (total - rest) / SECOND;
    *nanoseconds = rest;
}

static struct timespec moved(struct timespec at, int64_t sign) {
    int64_t nanoseconds = at.tv_nsec;
    move(sign, &at.tv_sec, &nanoseconds);
    at.tv_nsec = nanoseconds;
    return at;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = REAL(clock_gettime)(clock, at);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) *at = moved(*at, 1);
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    if (!result) *at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return result;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, at) ? base : 0;
}

/* A deadline by the wall clock is one by the kernel's clock for the kernel. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    struct timespec real = moved(*until, -1);
    return REAL(sem_timedwait)(semaphore, &real);
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict until) {
    struct timespec real = clock == CLOCK_REALTIME ? moved(*until, -1) : *until;
    return REAL(sem_clockwait)(semaphore, clock, &real);
}

/* Times of files: read, and set. */
#define STAT(name, parameters, ...)                                                                \
    int name parameters {                                                                          \
        int result = REAL(name)(__VA_ARGS__);                                                      \
        if (!result) {                                                                             \
            status->st_atim = moved(status->st_atim, 1);                                           \
            status->st_mtim = moved(status->st_mtim, 1);                                           \
            status->st_ctim = moved(status->st_ctim, 1);                                           \
        }                                                                                          \
        return result;                                                                             \
    }

STAT(stat, (const char *restrict path, struct stat *restrict status), path, status)
STAT(lstat, (const char *restrict path, struct stat *restrict status), path, status)
STAT(fstat, (int file, struct stat *status), file, status)
STAT(fstatat,
     (int folder, const char *restrict path, struct stat *restrict status, int flags),
     folder, path, status, flags)
STAT(stat64, (const char *restrict path, struct stat64 *restrict status), path, status)
STAT(lstat64, (const char *restrict path, struct stat64 *restrict status), path, status)
STAT(fstat64, (int file, struct stat64 *status), file, status)
STAT(fstatat64,
     (int folder, const char *restrict path, struct stat64 *restrict status, int flags),
     folder, path, status, flags)

int statx(int folder, const char *restrict path, int flags, unsigned int mask,
          struct statx *restrict status) {
    int result = REAL(statx)(folder, path, flags, mask, status);
    if (!result) {
        struct statx_timestamp *times[] = {&status->stx_atime, &status->stx_mtime,
                                           &status->stx_ctime, &status->stx_btime};
        for (int i = 0; i < 4; i++) {
            struct timespec at = moved((struct timespec){times[i]->tv_sec, times[i]->tv_nsec}, 1);
            times[i]->tv_sec = at.tv_sec;
            times[i]->tv_nsec = at.tv_nsec;
        }
    }
    return result;
}

static const struct timespec *back(const struct timespec times[2], struct timespec kept[2]) {
    if (!times) return NULL;
    for (int i = 0; i < 2; i++) {
        int special = times[i].tv_nsec == UTIME_NOW || times[i].tv_nsec == UTIME_OMIT;
        kept[i] = special ? times[i] : moved(times[i], -1);
    }
    return kept;
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    struct timespec kept[2];
    return REAL(utimensat)(folder, path, back(times, kept), flags);
}

int futimens(int file, const struct timespec times[2]) {
    struct timespec kept[2];
    return REAL(futimens)(file, back(times, kept));
}
