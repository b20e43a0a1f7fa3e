/* The compiler's default instruction set: SSE2 on x86-64, NEON on aarch64. */
#define LN_ISA base
#include "rows.h"
