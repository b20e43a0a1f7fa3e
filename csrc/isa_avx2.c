/* x86-64-v3: AVX2 and FMA, vectors of 256 bits. */
#include "simd.h"
#if LN_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c")
#endif
#define LN_ISA avx2
#define LN_VECTOR_BYTES 32
#define LN_REGISTERS 16
#define LN_FAST_FMA 1
#include "rows.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
