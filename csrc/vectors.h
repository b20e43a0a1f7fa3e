/* vectors.h: vectors of `real`, the building blocks of tiles.h; the twin of the vectors in
 * kernels/simd.py. Compiled for each type in each instruction set.
 *
 *   LANES          numbers of a vector (a plain digit: the preprocessor reads it)
 *   F(vec)         a vector; + works on it, v[i] is a lane
 *   F(load)        from any address, and F(store)
 *   F(load_first)  the first `count` numbers (all of them from LANES on), zeros after; no
 *                  other memory is touched. F(store_first) likewise. F(load_some) and
 *                  F(store_some) take the lanes as F(first_lanes) makes them, for several.
 *   F(load_within) from the number `at` of a row on, zeros for those outside a span of it, which
 *                  are not touched. F(span_of) makes the span [low, high) for several; at < 64
 *   F(stream)      to an address that is a multiple of a vector, past the caches; STREAM_FENCE() when
 *                  all are written
 *   F(splat)       one number in each lane
 *   F(fma)         a*b + c, rounded once
 *   F(even)        lanes 0, 2, ... of two vectors in a row
 *   F(odd)         lanes 1, 3, ... of them
 *   F(zip_low)     a0 b0 a1 b1 ..., the first half; F(zip_high) the second
 *   F(transpose)   of LANES vectors, in place
 *   IN_REGISTER(v) keeps the compiler from loading v anew for each use
 *   UNKNOWN(p)     the same address, but the compiler does not know: it loads anew what it may
 *                  have loaded before
 */

#define VECTOR_RATIO (LN_VECTOR_BYTES / REAL_BYTES)
#if VECTOR_RATIO == 16
#define LANES 16
#elif VECTOR_RATIO == 8
#define LANES 8
#elif VECTOR_RATIO == 4
#define LANES 4
#else
#define LANES 2
#endif

#ifndef LN_VECTORS_H
#define LN_VECTORS_H

#if LN_X86
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* Pieces of a kernel: constant arguments must meet the loops that they bound. Where no vector
 * is in a register anyway it would be but a lot of code. */
#if !LN_FAST_FMA
#define UNROLL
#define PIECE static
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define PIECE static inline __attribute__((always_inline))
#else
#define UNROLL _Pragma("GCC unroll 64")
#define PIECE static inline __attribute__((always_inline))
#endif

#if !LN_FAST_FMA
#define IN_REGISTER(v) ((void)(v))
#elif !LN_X86
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#elif LN_REGISTERS == 32
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#endif
#define UNKNOWN(p) __asm__ volatile("" : "+r"(p))
#if LN_X86
#define STREAM_FENCE() _mm_sfence()
#else
#define STREAM_FENCE() ((void)0)
#endif

/* f(0, a), f(1, a), ... for each lane */
#define EACH2(f, a, i) f((i), a), f((i) + 1, a)
#define EACH4(f, a, i) EACH2(f, a, i), EACH2(f, a, (i) + 2)
#define EACH8(f, a, i) EACH4(f, a, i), EACH4(f, a, (i) + 4)
#define EACH16(f, a, i) EACH8(f, a, i), EACH8(f, a, (i) + 8)
#define EACH_N(n) EACH_N_(n)
#define EACH_N_(n) EACH##n
#define EACH_LANE(f, a) EACH_N(LANES)(f, a, 0)
#define SAME(i, a) (a)
#define NUMBER(i, a) (i)

/* Vector of lanes i of a and LANES + i of b, for the i in the list. */
#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLE
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (F(lanes)){__VA_ARGS__})
#endif
#define EVEN(i, a) (2 * (i))
#define ODD(i, a) (2 * (i) + 1)
#define ZIP(i, first) (((i) & 1 ? LANES : 0) + (first) + (i) / 2)
/* Of two rows `d` apart of a matrix, blocks of d numbers: the blocks with even number of both,
 * or those with odd number. */
#define EVEN_BLOCKS(i, d) ((i) & (d) ? (i) - (d) + LANES : (i))
#define ODD_BLOCKS(i, d) ((i) & (d) ? (i) + LANES : (i) + (d))
#endif

typedef real F(vec) __attribute__((vector_size(LN_VECTOR_BYTES)));
typedef real F(loose_vec) __attribute__((vector_size(LN_VECTOR_BYTES), aligned(REAL_BYTES), may_alias));
typedef signed_bits F(lanes) __attribute__((vector_size(LN_VECTOR_BYTES)));

PIECE F(vec) F(load)(const real *p) { return *(const F(loose_vec) *)p; }
PIECE void F(store)(real *p, F(vec) v) { *(F(loose_vec) *)p = v; }
PIECE F(vec) F(splat)(real x) { return (F(vec)){EACH_LANE(SAME, x)}; }

#if LN_X86 && LN_VECTOR_BYTES == 64

PIECE F(vec) F(fma)(F(vec) a, F(vec) b, F(vec) c) { return MM512(fmadd)(a, b, c); }
PIECE void F(stream)(real *p, F(vec) v) { MM512(stream)(p, v); }

typedef uint32_t F(mask);

PIECE F(mask) F(first_lanes)(int64_t count)
{
    count = count < 0 ? 0 : count;
    return _bzhi_u32(~0u, (uint32_t)(count > LANES ? LANES : count));
}

PIECE F(vec) F(load_some)(const real *p, F(mask) some) { return MM512(maskz_loadu)(some, p); }
PIECE void F(store_some)(real *p, F(vec) v, F(mask) some) { MM512(mask_storeu)(p, some, v); }

typedef uint64_t F(span);

PIECE F(span) F(span_of)(int64_t low, int64_t high)
{
    low = low < 0 ? 0 : low > 64 ? 64 : low;
    high = high < 0 ? 0 : high > 64 ? 64 : high;
    return _bzhi_u64(~UINT64_C(0), (uint32_t)high) & ~_bzhi_u64(~UINT64_C(0), (uint32_t)low);
}

PIECE F(vec) F(load_within)(const real *row, int at, F(span) span)
{
    return F(load_some)(row + at, (F(mask))(span >> at));
}

#elif LN_X86 && LN_VECTOR_BYTES == 32

PIECE F(vec) F(fma)(F(vec) a, F(vec) b, F(vec) c) { return MM256(fmadd)(a, b, c); }
PIECE void F(stream)(real *p, F(vec) v) { MM256(stream)(p, v); }

typedef struct {
    int64_t count;
    __m256i lanes;
} F(mask);

PIECE F(mask) F(first_lanes)(int64_t count)
{
    signed_bits n = (signed_bits)(count < 0 ? 0 : count > LANES ? LANES : count);
    return (F(mask)){
        count, (__m256i)((F(lanes)){EACH_LANE(NUMBER, 0)} < (F(lanes)){EACH_LANE(SAME, n)})};
}

PIECE F(vec) F(load_some)(const real *p, F(mask) some)
{
    return some.count >= LANES ? F(load)(p) : (F(vec))MM256(maskload)(p, some.lanes);
}

PIECE void F(store_some)(real *p, F(vec) v, F(mask) some)
{
    if (some.count >= LANES)
        F(store)(p, v);
    else
        MM256(maskstore)(p, some.lanes, v);
}

typedef struct {
    F(lanes) low, high;
} F(span);

PIECE F(span) F(span_of)(int64_t low, int64_t high)
{
    signed_bits l = (signed_bits)(low < 0 ? 0 : low > 64 ? 64 : low);
    signed_bits h = (signed_bits)(high < 0 ? 0 : high > 64 ? 64 : high);
    return (F(span)){{EACH_LANE(SAME, l)}, {EACH_LANE(SAME, h)}};
}

PIECE F(vec) F(load_within)(const real *row, int at, F(span) span)
{
    F(lanes) here = (F(lanes)){EACH_LANE(NUMBER, 0)} + (signed_bits)at;
    return MM256(maskload)(row + at, (__m256i)((here >= span.low) & (here < span.high)));
}

#else

PIECE F(vec) F(fma)(F(vec) a, F(vec) b, F(vec) c)
{
#ifdef __aarch64__
    return F(vfmaq)(c, a, b);
#else
    UNROLL for (int i = 0; i < LANES; i++) c[i] = FMA(a[i], b[i], c[i]);
    return c;
#endif
}

PIECE void F(stream)(real *p, F(vec) v) { F(store)(p, v); }

typedef int64_t F(mask); /* how many lanes */

PIECE F(mask) F(first_lanes)(int64_t count) { return count; }

PIECE F(vec) F(load_some)(const real *p, F(mask) some)
{
    if (some >= LANES)
        return F(load)(p);
    F(vec) v = {0};
    UNROLL for (int i = 0; i < LANES - 1; i++) if (i < some) v[i] = p[i];
    return v;
}

PIECE void F(store_some)(real *p, F(vec) v, F(mask) some)
{
    if (some >= LANES)
        F(store)(p, v);
    else
        UNROLL for (int i = 0; i < LANES - 1; i++) if (i < some) p[i] = v[i];
}

typedef struct {
    int64_t low, high;
} F(span);

PIECE F(span) F(span_of)(int64_t low, int64_t high) { return (F(span)){low, high}; }

PIECE F(vec) F(load_within)(const real *row, int at, F(span) span)
{
    if (span.low <= at && at + LANES <= span.high)
        return F(load)(row + at);
    F(vec) v = {0};
    UNROLL for (int i = at; i < at + LANES; i++) if (span.low <= i && i < span.high) v[i - at] = row[i];
    return v;
}

#endif

PIECE F(vec) F(load_first)(const real *p, int64_t count)
{
    return F(load_some)(p, F(first_lanes)(count));
}

PIECE void F(store_first)(real *p, F(vec) v, int64_t count)
{
    F(store_some)(p, v, F(first_lanes)(count));
}

PIECE F(vec) F(even)(F(vec) a, F(vec) b) { return SHUFFLE(a, b, EACH_LANE(EVEN, 0)); }

PIECE F(vec) F(odd)(F(vec) a, F(vec) b) { return SHUFFLE(a, b, EACH_LANE(ODD, 0)); }
PIECE F(vec) F(zip_low)(F(vec) a, F(vec) b) { return SHUFFLE(a, b, EACH_LANE(ZIP, 0)); }
PIECE F(vec) F(zip_high)(F(vec) a, F(vec) b) { return SHUFFLE(a, b, EACH_LANE(ZIP, LANES / 2)); }

/* Rounds of exchanges between rows 1, 2, 4, ... apart: blocks of so many numbers. */
PIECE void F(transpose)(F(vec) v[LANES])
{
#define ROUND(d) \
    UNROLL for (int i = 0; i < LANES; i++) if (d < LANES && !(i & d)) \
    { \
        F(vec) a = v[i], b = v[i + d]; \
        v[i] = SHUFFLE(a, b, EACH_LANE(EVEN_BLOCKS, d)); \
        v[i + d] = SHUFFLE(a, b, EACH_LANE(ODD_BLOCKS, d)); \
    }
    ROUND(1)
#if LANES > 2
    ROUND(2)
#endif
#if LANES > 4
    ROUND(4)
#endif
#if LANES > 8
    ROUND(8)
#endif
#undef ROUND
}
