/* The compiler's default instruction set: SSE2 on x86-64, NEON on aarch64. */
#include "simd.h"
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
