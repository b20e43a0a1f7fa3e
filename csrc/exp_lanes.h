/* exp_lanes.h: exp on vectors, a few side by side; bit for bit the exp of scalar_functions.h.
 *
 * A compiler's own vectors of that function wait: each of its twenty operations needs the one
 * before, and a core looks ahead over a few such chains only. AVX-512 scales by 2^n in one
 * operation, rounding once as the two factors of `times_pow2` do. */

/* Vectors side by side: as many as the registers hold beside the constants. */
#define SIDE_BY_SIDE (LN_REGISTERS == 32 ? 4 : 2)

/* a > b ? a : b, which is b for NaN, and a < b ? a : b */
PIECE F(vec) F(larger_lanes)(F(vec) a, F(vec) b)
{
#if LN_X86 && LN_VECTOR_BYTES == 64
    return MM512(max)(a, b);
#elif LN_X86 && LN_VECTOR_BYTES == 32
    return MM256(max)(a, b);
#else
    UNROLL for (int i = 0; i < LANES; i++) b[i] = a[i] > b[i] ? a[i] : b[i];
    return b;
#endif
}

PIECE F(vec) F(smaller_lanes)(F(vec) a, F(vec) b)
{
#if LN_X86 && LN_VECTOR_BYTES == 64
    return MM512(min)(a, b);
#elif LN_X86 && LN_VECTOR_BYTES == 32
    return MM256(min)(a, b);
#else
    UNROLL for (int i = 0; i < LANES; i++) b[i] = a[i] < b[i] ? a[i] : b[i];
    return b;
#endif
}

/* x 2^n */
PIECE F(vec) F(times_pow2_lanes)(F(vec) x, F(vec) n)
{
#if LN_X86 && LN_VECTOR_BYTES == 64
    return MM512(scalef)(x, n);
#else
    const F(vec) magic = F(splat)(F(exponent_magic));
    F(vec) a = F(fma)(n, F(splat)((real)0.75), magic), b = F(fma)(n, F(splat)((real)0.25), magic);
    return x * (F(vec))((F(lanes))a << MANTISSA_BITS) * (F(vec))((F(lanes))b << MANTISSA_BITS);
#endif
}

/* x = exp(x) for `count` vectors, a constant up to 8 */
PIECE void F(exp_lanes)(F(vec) *x, int count)
{
#define EACH for (int k = 0; k < count; k++)
    const int terms = sizeof F(power) / sizeof F(power)[0];
    const F(vec) log2e = F(splat)(F(log2e)), magic = F(splat)(F(magic));
    F(vec) n[8], y[8];
    UNROLL EACH x[k] = F(larger_lanes)(F(splat)(F(exp_low)), x[k]);
    UNROLL EACH x[k] = F(smaller_lanes)(F(splat)(F(exp_high)), x[k]);
    UNROLL EACH n[k] = F(fma)(x[k], log2e, magic) - magic;
    UNROLL EACH y[k] = F(fma)(x[k], log2e, -n[k]);
    UNROLL EACH x[k] = F(fma)(x[k], F(splat)(F(log2e_lo)), y[k]);
    UNROLL EACH y[k] = F(splat)(F(power)[terms - 1]);
    UNROLL for (int i = terms - 2; i >= 0; i--)
    {
        UNROLL EACH y[k] = F(fma)(y[k], x[k], F(splat)(F(power)[i]));
    }
    UNROLL EACH y[k] = F(fma)(x[k], y[k], F(splat)((real)1));
    UNROLL EACH x[k] = F(times_pow2_lanes)(y[k], n[k]);
#undef EACH
}
