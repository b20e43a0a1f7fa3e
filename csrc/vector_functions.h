/* vector_functions.h: the functions of scalar_functions.h on vectors, sigmoid_lanes for sigmoid
 * and so on: the same text, compiled once more, so that the bits are the same.
 *
 * A compiler makes vectors of a loop over the scalar functions too, but no good ones: gcc takes two
 * operations for each clamp, and one vector after the other, of which each operation waits for
 * the one before; a core looks ahead over a few such chains only. clang makes none at all. So
 * loops load a few vectors SIDE_BY_SIDE, and INTERLEAVED lets gcc mix their operations. */

/* Vectors side by side: as many as the registers hold beside the constants. */
#define SIDE_BY_SIDE (LN_REGISTERS == 32 ? 4 : 2)

/* Before a function: gcc mixes the operations of independent chains in it. */
#if defined(__GNUC__) && !defined(__clang__) && LN_FAST_FMA
#define INTERLEAVED __attribute__((optimize("schedule-insns", "sched-pressure")))
#else
#define INTERLEAVED
#endif

typedef bits F(lane_bits) __attribute__((vector_size(LN_VECTOR_BYTES)));

#define VALUES_ARE_VECTORS
#define value F(vec)
#define N(name) F(name##_lanes)
/* of a number or a vector: x - 0 is x, -0 too */
#define REPEAT(x) ((x) - (F(vec)){0})

PIECE F(vec) F(float_of_lanes)(F(lane_bits) b) { return (F(vec))b; }
PIECE F(lane_bits) F(bits_of_lanes)(F(vec) x) { return (F(lane_bits))x; }

PIECE F(vec) F(absolute_lanes)(F(vec) x)
{
    return (F(vec))((F(lane_bits))x & ((bits)-1 >> 1));
}

PIECE F(vec) F(with_sign_lanes)(F(vec) size, F(vec) sign)
{
    const F(lane_bits) rest = (F(lane_bits)){0} + ((bits)-1 >> 1);
    return (F(vec))(((F(lane_bits))size & rest) | ((F(lane_bits))sign & ~rest));
}

/* larger: a > b ? a : b, which is b for NaN; smaller: a < b ? a : b */
#if LN_X86 && LN_VECTOR_BYTES == 64
PIECE F(vec) F(larger_lanes)(F(vec) a, F(vec) b) { return MM512(max)(a, b); }
PIECE F(vec) F(smaller_lanes)(F(vec) a, F(vec) b) { return MM512(min)(a, b); }
#define LESS _CMP_LT_OQ
#define LESS_EQUAL _CMP_LE_OQ
#define EQUAL _CMP_EQ_OQ
#define SELECT(a, relation, b, yes, no) \
    MM512(mask_blend)(LN_PASTE2(MM512(cmp), mask)(REPEAT(a), REPEAT(b), relation), REPEAT(no), \
                      REPEAT(yes))
/* c - a*b, with an instruction of its own: gcc negates a where it is used again */
#define FROM(c, a, b) MM512(fnmadd)(REPEAT(a), REPEAT(b), REPEAT(c))
/* Rounds once, as the two factors of `times_pow2` do. */
#define TIMES_POW2(x, n) MM512(scalef)(x, n)
#else
#define TIMES_POW2(x, n) F(times_pow2_lanes)(x, n)
#if LN_X86 && LN_VECTOR_BYTES == 32
#define FROM(c, a, b) MM256(fnmadd)(REPEAT(a), REPEAT(b), REPEAT(c))
PIECE F(vec) F(larger_lanes)(F(vec) a, F(vec) b) { return MM256(max)(a, b); }
PIECE F(vec) F(smaller_lanes)(F(vec) a, F(vec) b) { return MM256(min)(a, b); }
#define LESS _CMP_LT_OQ
#define LESS_EQUAL _CMP_LE_OQ
#define EQUAL _CMP_EQ_OQ
#define SELECT(a, relation, b, yes, no) \
    MM256(blendv)(REPEAT(no), REPEAT(yes), MM256(cmp)(REPEAT(a), REPEAT(b), relation))
#else
#define FROM(c, a, b) F(fma)(-REPEAT(a), REPEAT(b), REPEAT(c))
PIECE F(vec) F(select_lanes)(F(lanes) which, F(vec) yes, F(vec) no)
{
    return (F(vec))((which & (F(lanes))yes) | (~which & (F(lanes))no));
}
#define LESS <
#define LESS_EQUAL <=
#define EQUAL ==
#define SELECT(a, relation, b, yes, no) \
    F(select_lanes)((F(lanes))(REPEAT(a) relation REPEAT(b)), REPEAT(yes), REPEAT(no))
PIECE F(vec) F(larger_lanes)(F(vec) a, F(vec) b) { return SELECT(b, LESS, a, a, b); }
PIECE F(vec) F(smaller_lanes)(F(vec) a, F(vec) b) { return SELECT(a, LESS, b, a, b); }
#endif
#endif

PIECE F(vec) F(at_least_lanes)(F(vec) x, real low) { return F(larger_lanes)(F(splat)(low), x); }
PIECE F(vec) F(at_most_lanes)(F(vec) x, real high) { return F(smaller_lanes)(F(splat)(high), x); }

#pragma push_macro("FMA")
#undef FMA
#define FMA(a, b, c) F(fma)(REPEAT(a), REPEAT(b), REPEAT(c))
#include "scalar_functions.h"
#pragma pop_macro("FMA")
#undef VALUES_ARE_VECTORS

/* x = exp(x) for `count` vectors, a constant */
PIECE void F(exp_each)(F(vec) *x, int count)
{
    UNROLL for (int k = 0; k < count; k++) x[k] = F(exp_lanes)(x[k]);
}
