/* spin.c: POSIX semaphores with a spin before the sleep. */
#if defined(__linux__)
#define _POSIX_C_SOURCE 200809L
#include <semaphore.h>
#include <time.h>
#endif
#include <stddef.h>
#include <stdlib.h>

#include "spin.h"

#if defined(__linux__)

struct ln_semaphore {
    sem_t sem;
};

ln_semaphore *ln_semaphore_new(void)
{
    ln_semaphore *semaphore = malloc(sizeof *semaphore);
    if (semaphore && sem_init(&semaphore->sem, 0, 0) != 0) {
        free(semaphore);
        semaphore = NULL;
    }
    return semaphore;
}

void ln_semaphore_free(ln_semaphore *semaphore)
{
    sem_destroy(&semaphore->sem);
    free(semaphore);
}

void ln_semaphore_post(ln_semaphore *semaphore) { sem_post(&semaphore->sem); }

/* Tell the CPU that this is a spin. */
static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Look until there is one to take; 0 if there is none for `spin` nanoseconds. */
static int look(sem_t *sem, int64_t spin)
{
    int64_t end = nanoseconds() + spin;
    do {
        for (int i = 0; i < 16; i++) {
            if (sem_trywait(sem) == 0)
                return 1;
            relax();
        }
    } while (nanoseconds() < end);
    return 0;
}

static void sleep_until_posted(sem_t *sem)
{
    while (sem_wait(sem) != 0) {
    } /* a signal woke us */
}

void ln_semaphore_wait(ln_semaphore *semaphore, int64_t spin)
{
    if (!look(&semaphore->sem, spin))
        sleep_until_posted(&semaphore->sem);
}

void ln_semaphore_post_then_wait(ln_semaphore *posted, ln_semaphore *waited, int64_t spin, int64_t pause)
{
    sem_post(&posted->sem);
    if (!look(&waited->sem, spin))
        sleep_until_posted(&waited->sem);
    else
        for (int64_t end = nanoseconds() + pause; nanoseconds() < end;) relax();
}

#else /* no unnamed POSIX semaphores (macOS, Windows): threads.py does without */

ln_semaphore *ln_semaphore_new(void) { return NULL; }
void ln_semaphore_free(ln_semaphore *semaphore) { (void)semaphore; }
void ln_semaphore_post(ln_semaphore *semaphore) { (void)semaphore; }
void ln_semaphore_wait(ln_semaphore *semaphore, int64_t spin) { (void)semaphore, (void)spin; }
void ln_semaphore_post_then_wait(ln_semaphore *posted, ln_semaphore *waited, int64_t spin, int64_t pause)
{
    (void)posted, (void)waited, (void)spin, (void)pause;
}

#endif
