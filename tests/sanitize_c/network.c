/* network.c: runs an exported network on a thread whose stack is 64 KB. Built by tests/sanitize.py
 * with X and Y, the numbers of inputs and outputs, and REAL. Reads inputs and writes outputs as bytes. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

void net_forward(const REAL *x, REAL *y);

static REAL *x, *y;

static void *run(void *nothing)
{
    net_forward(x, y);
    return nothing;
}

int main(void)
{
    pthread_attr_t small;
    pthread_t thread;
    x = malloc(X * sizeof *x), y = malloc(Y * sizeof *y);
    if (!x || !y || fread(x, sizeof *x, X, stdin) != X) return 2;
    pthread_attr_init(&small);
    if (pthread_attr_setstacksize(&small, STACK) || pthread_create(&thread, &small, run, NULL))
        return 3;
    pthread_join(thread, NULL);
    fwrite(y, sizeof *y, Y, stdout);
    free(x), free(y);
    return 0;
}
