/* spin.c: POSIX semaphores with a spin before the sleep; calls split over those who wait. */
#if defined(__linux__)
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <semaphore.h>
#include <time.h>
#endif
#include <stddef.h>
#include <stdlib.h>

#include "spin.h"

#if defined(__linux__)

/* A call that is split; it lives on its caller's stack, and the semaphore's lock guards it. */
struct call {
    struct call *next;
    ln_piece *piece;
    void *argument;
    int64_t items, pieces, front, back; /* pieces that were taken from either end */
    int runners, most_runners, inside;  /* helpers at work on it */
    int left;                           /* whether its caller waits for them */
    sem_t ended;
};

struct ln_semaphore {
    sem_t sem;
    pthread_mutex_t lock;
    struct call *calls;
    int invitations; /* so many of the semaphore's count are for calls */
};

ln_semaphore *ln_semaphore_new(void)
{
    ln_semaphore *semaphore = calloc(1, sizeof *semaphore);
    if (!semaphore)
        return NULL;
    if (sem_init(&semaphore->sem, 0, 0) == 0) {
        if (pthread_mutex_init(&semaphore->lock, NULL) == 0)
            return semaphore;
        sem_destroy(&semaphore->sem);
    }
    free(semaphore);
    return NULL;
}

void ln_semaphore_free(ln_semaphore *semaphore)
{
    pthread_mutex_destroy(&semaphore->lock);
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

/* Run pieces of a call until none is left; the lock is held before and after. */
static void run_pieces(ln_semaphore *semaphore, struct call *call, int runner)
{
    while (call->front + call->back < call->pieces) {
        int64_t i = runner == 0 ? call->front++ : call->pieces - ++call->back;
        pthread_mutex_unlock(&semaphore->lock);
        call->piece(call->argument, runner, call->items * i / call->pieces,
                    call->items * (i + 1) / call->pieces);
        pthread_mutex_lock(&semaphore->lock);
    }
}

/* What a count of the semaphore is for, once it was taken: 0 if it is not for a call. Else help
 * with one, if there still is one. */
static int help(ln_semaphore *semaphore)
{
    pthread_mutex_lock(&semaphore->lock);
    int invited = semaphore->invitations > 0;
    semaphore->invitations -= invited;
    for (struct call *call = invited ? semaphore->calls : NULL; call; call = call->next) {
        if (call->runners == call->most_runners || call->front + call->back == call->pieces)
            continue;
        call->inside++;
        run_pieces(semaphore, call, call->runners++);
        if (--call->inside == 0 && call->left)
            sem_post(&call->ended);
        break;
    }
    pthread_mutex_unlock(&semaphore->lock);
    return invited;
}

/* Wait for a count that is not for a call; whether we did not sleep for it. */
static int wait_and_help(ln_semaphore *semaphore, int64_t spin)
{
    int quick;
    do {
        quick = look(&semaphore->sem, spin);
        if (!quick)
            sleep_until_posted(&semaphore->sem);
    } while (help(semaphore));
    return quick;
}

void ln_semaphore_wait(ln_semaphore *semaphore, int64_t spin) { wait_and_help(semaphore, spin); }

void ln_semaphore_post_then_wait(ln_semaphore *posted, ln_semaphore *waited, int64_t spin, int64_t pause)
{
    sem_post(&posted->sem);
    if (wait_and_help(waited, spin))
        for (int64_t end = nanoseconds() + pause; nanoseconds() < end;) relax();
}

void ln_split(ln_semaphore *semaphore, ln_piece *piece, void *argument, int64_t items,
              int64_t pieces, int helpers, int64_t spin)
{
    struct call call = {.piece = piece, .argument = argument, .items = items, .pieces = pieces,
                        .runners = 1, .most_runners = helpers + 1};
    if (sem_init(&call.ended, 0, 0) != 0) {
        piece(argument, 0, 0, items);
        return;
    }
    pthread_mutex_lock(&semaphore->lock);
    call.next = semaphore->calls;
    semaphore->calls = &call;
    semaphore->invitations += helpers;
    pthread_mutex_unlock(&semaphore->lock);
    for (int i = 0; i < helpers; i++) sem_post(&semaphore->sem);
    pthread_mutex_lock(&semaphore->lock);
    run_pieces(semaphore, &call, 0);
    for (struct call **at = &semaphore->calls; *at; at = &(*at)->next)
        if (*at == &call) {
            *at = call.next; /* who comes now comes too late */
            break;
        }
    call.left = call.inside > 0;
    pthread_mutex_unlock(&semaphore->lock);
    if (call.left) {
        if (!look(&call.ended, spin))
            sleep_until_posted(&call.ended);
        pthread_mutex_lock(&semaphore->lock); /* who posted may still have it */
        pthread_mutex_unlock(&semaphore->lock);
    }
    sem_destroy(&call.ended);
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

void ln_split(ln_semaphore *semaphore, ln_piece *piece, void *argument, int64_t items,
              int64_t pieces, int helpers, int64_t spin)
{
    (void)semaphore, (void)pieces, (void)helpers, (void)spin;
    piece(argument, 0, 0, items);
}

#endif
