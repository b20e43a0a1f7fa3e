/* spin.h: counting semaphores that spin before they sleep, and calls split over those who wait; for
 * python/loopnest/runtime/threads.py and csrc/direct.c.
 *
 * Waking a sleeping thread takes tens of microseconds, as long as many a kernel runs, so
 * whoever waits looks for a while first. Not part of the public interface. */
#ifndef LN_SPIN_H
#define LN_SPIN_H

#include <stdint.h>

/* cffi: begin */

typedef struct ln_semaphore ln_semaphore;

/* A semaphore of count 0; NULL where there are none, or no memory. */
ln_semaphore *ln_semaphore_new(void);
void ln_semaphore_free(ln_semaphore *semaphore);
/* Count one up, and wake who waits. */
void ln_semaphore_post(ln_semaphore *semaphore);
/* Count one down, as soon as there is one; sleep after `spin` nanoseconds. */
void ln_semaphore_wait(ln_semaphore *semaphore, int64_t spin);
/* Post one, then wait for the other, in one call: Python's lock is not held in between. Who is
 * woken without having slept stays `pause` nanoseconds more. */
void ln_semaphore_post_then_wait(ln_semaphore *posted, ln_semaphore *waited, int64_t spin, int64_t pause);

/* Items [first, last) of a call; `runner` (0 is the caller) is another number for each thread. */
typedef void ln_piece(void *call, int runner, int64_t first, int64_t last);
/* Run pieces that together cover [0, items) on this thread, from the front, and on up to `helpers` of
 * those who wait for the semaphore, from the back: they do it inside their wait, without Python.
 * Returns when all have ended. */
typedef void ln_split_call(ln_semaphore *semaphore, ln_piece *piece, void *call, int64_t items,
                           int64_t pieces, int helpers, int64_t spin);
void ln_split(ln_semaphore *semaphore, ln_piece *piece, void *call, int64_t items, int64_t pieces,
              int helpers, int64_t spin);

/* cffi: end */

#endif
