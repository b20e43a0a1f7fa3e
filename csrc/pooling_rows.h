/* pooling_rows.h: loops over rows, which pooling is made of; the twin of
 * kernels/pooling_rows.py, where more is told. All of them vectorise. */

#ifndef LN_POOLING_ROWS
#define LN_POOLING_ROWS
#define LN_AHEAD 4096 /* bytes */
#define LN_STREAM_FROM (8 << 20) /* bytes of output: four times a large L2 */
#define LN_PARTS 4 /* of an average of 2x2 that is streamed */
#define LN_SLACK 64 /* elements of work space behind a row, for counts rounded up */

static inline int64_t pool_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t pool_max(int64_t a, int64_t b) { return a > b ? a : b; }

/* A window clipped to the input, and its length with padding. */
typedef struct {
    int64_t first, last, padded;
} window;

static inline window pool_window(int64_t out, int64_t stride, int64_t pad, int64_t size, int64_t kernel)
{
    int64_t start = out * stride - pad, end = pool_min(start + kernel, size + pad);
    return (window){pool_max(start, 0), pool_min(end, size), end - start};
}

/* What an average divides by. */
static inline int64_t pool_count(window h, window w, int64_t include_pad, int64_t divisor)
{
    if (divisor)
        return divisor;
    return include_pad ? h.padded * w.padded : pool_max(1, (h.last - h.first) * (w.last - w.first));
}

/* Whether a window, of rows h and columns w, has more terms than a run of sums.h. */
static inline int pool_is_long(window h, window w)
{
    return (h.last - h.first) * (w.last - w.first) > LN_RUN;
}

typedef struct {
    int64_t first, last;
} range;

/* The outputs whose windows lie within the input. */
static inline range pool_inner(int64_t stride, int64_t pad, int64_t size, int64_t extent, int64_t out)
{
    int64_t first = pool_min((pad + stride - 1) / stride, out);
    int64_t fitting = size + pad >= extent ? (size - extent + pad) / stride + 1 : 0;
    return (range){first, pool_max(first, pool_min(fitting, out))};
}

/* The taps, the first at `start`, that lie within the input. */
static inline range pool_taps(int64_t start, int64_t size, int64_t kernel, int64_t dilation)
{
    if (dilation == 1) { /* the same without a division */
        int64_t first = pool_max(0, -start);
        return (range){first, pool_max(first, pool_min(kernel, size - start))};
    }
    int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    int64_t last = pool_min(start < size ? (size - 1 - start) / dilation + 1 : 0, kernel);
    return (range){first, pool_max(first, last)};
}

/* The usual pooling: windows of 2 x 2 side by side, all within the input. */
static inline int pool_halves(const ln_pool2d_shape *d)
{
    return d->kernel_h == 2 && d->kernel_w == 2 && d->stride_h == 2 && d->stride_w == 2 && d->pad_h == 0
        && d->pad_w == 0 && 2 * d->oh <= d->h && 2 * d->ow <= d->w;
}

/* How many rows are worked on together. */
static inline int64_t pool_batch(int64_t width) { return pool_max(1, pool_min(8, 4096 / width)); }

/* Where the element at `position` of a row is, once it is split (half is not 0). */
static inline int64_t pool_element(int64_t position, int64_t half)
{
    return half ? (position & 1) * half + (position >> 1) : position;
}

/* `count` as a multiple of 32, but at most `room`. */
static inline int64_t rounded(int64_t count, int64_t room) { return pool_min((count + 31) & ~INT64_C(31), room); }
#endif

static inline void F(row_fill)(real *y, int64_t count, real value)
{
    for (int64_t i = 0; i < count; i++) y[i] = value;
}

/* `count` pairs: the first of each to `even`, the second to `odd`. */
static inline void F(row_split)(const real *x, real *even, real *odd, int64_t count)
{
    INDEPENDENT for (int64_t i = 0; i < count; i++)
    {
        even[i] = x[2 * i];
        odd[i] = x[2 * i + 1];
    }
}

/* The reverse. */
static inline void F(row_merge)(const real *even, const real *odd, real *y, int64_t count)
{
    INDEPENDENT for (int64_t i = 0; i < count; i++)
    {
        y[2 * i] = even[i];
        y[2 * i + 1] = odd[i];
    }
}

/* Ask for `count` numbers that will be read some rows later; they need not exist. The CPU looks
 * ahead by itself, but not beyond a page of 4 KB: it starts anew on each. */
static inline void F(row_fetch)(const real *x, int64_t count)
{
    for (uintptr_t at = 0; at < (uintptr_t)count * sizeof *x; at += 64)
        __builtin_prefetch((const void *)((uintptr_t)x + LN_AHEAD + at), 0, 3);
}

/* Each of `count` numbers twice, and 0 in place of -0; reads and writes up to whole vectors. */
static inline void F(row_twice)(const real *x, real *y, int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES) {
        F(vec) v = F(load)(x + i) + (real)0;
        F(store)(y + 2 * i, F(zip_low)(v, v));
        F(store)(y + 2 * i + LANES, F(zip_high)(v, v));
    }
}

/* Write numbers of a buffer to y, as many as fill cache lines: streamed, a line need not be read
 * before it is written, which is half of what memory would have to do. How many were written. */
static inline int64_t F(row_stream)(const real *buffer, real *y, int64_t count)
{
    int64_t line = 64 / (int64_t)sizeof *y;
    int64_t at = pool_min(count, (int64_t)(-(uintptr_t)y & 63) / (int64_t)sizeof *y);
    if (at)
        memcpy(y, buffer, (size_t)at * sizeof *y); /* up to the first line */
    for (; at + line <= count; at += line)
        for (int64_t i = at; i < at + line; i += LANES) F(stream)(y + i, F(load)(buffer + i));
    return at;
}

static inline int64_t F(row_put)(const real *buffer, real *y, int64_t count)
{
    memcpy(y, buffer, (size_t)count * sizeof *y);
    return count;
}

/* ---- sums: each begins with 0, so that -0 becomes 0 ---- */

static inline void F(row_first_sum)(const real *x, real *y, int64_t count)
{
    INDEPENDENT for (int64_t i = 0; i < count; i++) y[i] = x[i] + (real)0;
}

static inline void F(row_first_sum_of_2)(const real *a, const real *b, real *y, int64_t count)
{
    INDEPENDENT for (int64_t i = 0; i < count; i++) y[i] = (a[i] + (real)0) + b[i];
}

static inline void F(row_add)(const real *x, real *y, int64_t count)
{
    INDEPENDENT for (int64_t i = 0; i < count; i++) y[i] += x[i];
}

/* Divide by an integer; by a power of two as a product, which gives the same bits. */
static inline void F(row_divide)(real *y, int64_t count, int64_t divisor)
{
    if ((divisor & (divisor - 1)) == 0) {
        real by = 1 / (real)divisor;
        for (int64_t i = 0; i < count; i++) y[i] *= by;
    } else {
        real by = (real)divisor;
        for (int64_t i = 0; i < count; i++) y[i] /= by;
    }
}

static inline real F(sum_of_2_by_2)(const real *a, const real *b)
{
    return (((a[0] + (real)0) + b[0]) + (real)0) + ((a[1] + (real)0) + b[1]);
}

/* Sums of the pairs of two rows, divided likewise; the usual pooling. */
static inline void F(row_mean_of_2_by_2)(const real *a, const real *b, real *y, int64_t count, int64_t divisor)
{
    real by = (real)divisor;
    if ((divisor & (divisor - 1)) == 0) {
        by = 1 / by;
        int64_t i = 0; /* in vectors by hand: the compiler would pick pairs apart in both rows */
        for (; i + LANES <= count; i += LANES) {
            F(vec) low = (F(load)(a + 2 * i) + (real)0) + F(load)(b + 2 * i);
            F(vec) high = (F(load)(a + 2 * i + LANES) + (real)0) + F(load)(b + 2 * i + LANES);
            F(store)(y + i, ((F(even)(low, high) + (real)0) + F(odd)(low, high)) * by);
        }
        for (; i < count; i++) y[i] = F(sum_of_2_by_2)(a + 2 * i, b + 2 * i) * by;
    } else {
        INDEPENDENT for (int64_t i = 0; i < count; i++) y[i] = F(sum_of_2_by_2)(a + 2 * i, b + 2 * i) / by;
    }
}

static inline real F(sum_of_few)(const real *x, int64_t count)
{
    real total = 0;
    for (int64_t i = 0; i < count; i++) total += x[i];
    return total;
}

/* ---- maxima: of equal values the first stays ---- */

#define BETTER(v, best) ((v) > (best) ? (v) : (best))
#define BETTER_OR_NAN(v, best) ((((v) > (best)) | ((v) != (v))) ? (v) : (best))

static inline void F(row_best_of_3)(const real *a, const real *b, const real *c, real *y, int64_t count, int nan)
{
    if (nan) {
        INDEPENDENT for (int64_t i = 0; i < count; i++)
        {
            real best = BETTER_OR_NAN(b[i], a[i]);
            y[i] = BETTER_OR_NAN(c[i], best);
        }
    } else {
        INDEPENDENT for (int64_t i = 0; i < count; i++)
        {
            real best = BETTER(b[i], a[i]);
            y[i] = BETTER(c[i], best);
        }
    }
}

static inline void F(row_better_of_2)(const real *a, const real *b, real *y, int64_t count, int nan)
{
    if (nan) {
        INDEPENDENT for (int64_t i = 0; i < count; i++)
        {
            real best = BETTER_OR_NAN(a[i], y[i]);
            y[i] = BETTER_OR_NAN(b[i], best);
        }
    } else {
        INDEPENDENT for (int64_t i = 0; i < count; i++)
        {
            real best = BETTER(a[i], y[i]);
            y[i] = BETTER(b[i], best);
        }
    }
}

static inline void F(row_better_or_nan)(const real *x, real *y, int64_t count)
{
    INDEPENDENT for (int64_t i = 0; i < count; i++)
    {
        real v = x[i], best = y[i];
        y[i] = BETTER_OR_NAN(v, best);
    }
}

/* Numbers from p on, or with stride 2 every second one; zeros where the masks of both halves end. */
PIECE F(vec) F(load_every)(const real *p, int64_t stride, F(mask) low, F(mask) high)
{
    F(vec) v = F(load_some)(p, low);
    return stride == 1 ? v : F(even)(v, F(load_some)(p + LANES, high));
}

typedef int64_t F(places) __attribute__((vector_size(8 * LANES)));

/* Maxima of a row of windows that lie within the input, and where they are in the plane. x is the
 * first window's first tap, `at` its place; stride (1 or 2) is that of the windows, step and pitch
 * are those of taps in a row and of rows. */
static void F(places_of_row)(const real *x, int64_t at, int64_t stride, int64_t step, int64_t taps_w,
                             int64_t pitch, int64_t taps_h, real *y, int64_t *places, int64_t count)
{
    for (int64_t first = 0; first < count; first += LANES) {
        int64_t left = count - first, span = stride * (left - 1) + 1;
        F(mask) low = F(first_lanes)(span), high = F(first_lanes)(span - LANES);
        F(vec) best = F(load_every)(x + stride * first, stride, low, high);
        F(lanes) found = {0};
        for (int64_t i = 0; i < taps_h; i++)
            for (int64_t j = 0; j < taps_w; j++) {
                int64_t place = i * pitch + j * step;
                F(vec) v = F(load_every)(x + stride * first + place, stride, low, high);
                F(lanes) take = (v > best) | (v != v);
                best = (F(vec))((take & (F(lanes))v) | (~take & (F(lanes))best));
                found = (take & (F(lanes)){EACH_LANE(SAME, (signed_bits)place)}) | (~take & found);
            }
        F(store_first)(y + first, best, left);
        F(places) places_here = __builtin_convertvector(found, F(places)) + (at + stride * first)
                                + (F(places)){EACH_LANE(NUMBER, 0)} * stride;
        if (left >= LANES)
            memcpy(places + first, &places_here, sizeof places_here);
        else
            memcpy(places + first, &places_here, (size_t)left * sizeof *places);
    }
}

static inline int F(has_nan)(const real *x, int64_t count)
{
    signed_bits found = 0;
    for (int64_t i = 0; i < count; i++) found |= x[i] != x[i];
    return found != 0;
}

/* No branch on the values: which is the larger, nobody can foretell. */
static inline real F(max_of_few)(const real *x, int64_t step, int64_t count, int nan)
{
    real best = x[0];
    if (nan)
        for (int64_t j = 1; j < count; j++) best = BETTER_OR_NAN(x[j * step], best);
    else
        for (int64_t j = 1; j < count; j++) best = BETTER(x[j * step], best);
    return best;
}
