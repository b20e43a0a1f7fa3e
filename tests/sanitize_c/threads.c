/* threads.c: helper threads (csrc/spin.c) under ThreadSanitizer, with signals, forks and an exit
 * while helpers wait. Built and run by tests/sanitize.py. The argument is the number of rounds. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spin.h"

enum { HELPERS = 3, CALLERS = 3, ITEMS = 64 };

static ln_semaphore *jobs;
static int rounds;
static int ended; /* callers that have ended */

struct sums {
    int64_t items[ITEMS];
};

/* Each item is written by whoever takes its piece, and read by the caller when all have ended. */
static void add(void *made, int runner, int64_t first, int64_t last)
{
    struct sums *sums = made;
    (void)runner;
    for (int64_t i = first; i < last; i++) sums->items[i] += i + 1;
}

static void *help(void *nothing)
{
    for (;;) ln_semaphore_wait(jobs, 50000);
    return nothing;
}

static void *call(void *failed)
{
    struct sums sums = {{0}};
    for (int round = 0; round < rounds; round++)
        ln_split(jobs, add, &sums, ITEMS, 2 + round % 7, HELPERS, round % 3 ? 50000 : 0);
    for (int64_t i = 0; i < ITEMS; i++)
        if (sums.items[i] != rounds * (i + 1)) *(int *)failed = 1;
    __atomic_add_fetch(&ended, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static void nothing(int number) { (void)number; }

static void *disturb(void *unused)
{
    while (__atomic_load_n(&ended, __ATOMIC_ACQUIRE) < CALLERS) {
        kill(getpid(), SIGUSR1);
        usleep(500);
    }
    return unused;
}

/* A child has none of the threads: it makes a semaphore of its own and does the work alone. */
static int forked(void)
{
    pid_t child = fork();
    if (child == 0) {
        struct sums sums = {{0}};
        ln_semaphore *own = ln_semaphore_new();
        for (int round = 0; round < 10; round++) ln_split(own, add, &sums, ITEMS, 4, 0, 0);
        _exit(sums.items[ITEMS - 1] == 10 * ITEMS ? 0 : 1);
    }
    int status = 1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue; /* by `disturb` */
    return status;
}

int main(int count, char **arguments)
{
    pthread_t thread, callers[CALLERS], other;
    int failed[CALLERS] = {0}, forks = 0;
    rounds = count > 1 ? atoi(arguments[1]) : 1000;
    signal(SIGUSR1, nothing);
    jobs = ln_semaphore_new();
    for (int i = 0; i < HELPERS; i++) pthread_create(&thread, NULL, help, NULL);
    for (int i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, call, &failed[i]);
    pthread_create(&other, NULL, disturb, NULL);
    for (int i = 0; i < 5; i++) forks += forked() != 0;
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
    pthread_join(other, NULL);
    for (int i = 0; i < CALLERS; i++) forks += failed[i];
    printf("%d failed\n", forks);
    return forks != 0; /* the helpers are still waiting */
}
