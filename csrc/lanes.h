/* lanes.h: sums in 16 interleaved lanes, the twin of kernels/lanes.py. */

/* Add x[0 .. count) to the lanes: lane l takes elements l, l+16, ... */
static inline void F(add_lanes)(real lanes[16], const real *x, int64_t count)
{
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int lane = 0; lane < 16; lane++) lanes[lane] += x[i + lane];
    for (int lane = 0; i + lane < count; lane++) lanes[lane] += x[i + lane];
}

/* Sum of the lanes, folded 8, 4, 2, 1; they are used up. */
static inline real F(fold)(real lanes[16])
{
    for (int half = 8; half; half /= 2)
        for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
    return lanes[0];
}
