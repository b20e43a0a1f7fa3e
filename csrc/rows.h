/* rows.h: every row for float, then for double, then those on bits, in the instruction set LN_ISA. */
#include "include/loopnest.h"
#include "scalar.h"
#include "simd.h"
#include "slope.h"

#define real float
#define REAL_BYTES 4
#define SUFFIX f32
#define MM512(name) LN_PASTE3(_mm512, name, ps)
#define MM256(name) LN_PASTE3(_mm256, name, ps)
#define FMA(a, b, c) fmaf(a, b, c)
#define SQRT(a) sqrtf(a)
#define bits uint32_t
#define signed_bits int32_t
#define MANTISSA_BITS 23
#include "row_list.h"
#undef real
#undef REAL_BYTES
#undef SUFFIX
#undef MM512
#undef MM256
#undef LANES
#undef FMA
#undef SQRT
#undef bits
#undef signed_bits
#undef MANTISSA_BITS

#define real double
#define REAL_BYTES 8
#define SUFFIX f64
#define MM512(name) LN_PASTE3(_mm512, name, pd)
#define MM256(name) LN_PASTE3(_mm256, name, pd)
#define FMA(a, b, c) fma(a, b, c)
#define SQRT(a) sqrt(a)
#define bits uint64_t
#define signed_bits int64_t
#define MANTISSA_BITS 52
#include "row_list.h"
#undef real
#undef REAL_BYTES
#undef SUFFIX
#undef MM512
#undef MM256
#undef LANES
#undef FMA
#undef SQRT
#undef bits
#undef signed_bits
#undef MANTISSA_BITS

/* Rows without floating point, once. */
#define SUFFIX u64
#include "logic_bits.c"
#include "pooling_indices.c"
#undef SUFFIX
