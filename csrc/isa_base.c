/* The compiler's default instruction set: SSE2 on x86-64, NEON on aarch64. */
#include "simd.h"
#if LN_X86 && defined(__GNUC__) && !defined(__clang__)
/* CPUs of before 2013, where each multiply-add is a call: nothing is quick, so let it be small. */
#pragma GCC optimize("Os")
#endif
#define LN_ISA base
#define LN_VECTOR_BYTES 16
#if LN_X86
#define LN_REGISTERS 16
#define LN_FAST_FMA 0
#else
#define LN_REGISTERS 32
#define LN_FAST_FMA 1
#endif
#include "rows.h"
