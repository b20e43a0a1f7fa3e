/* x86-64-v4: AVX-512, vectors of 512 bits. */
#include "simd.h"
#if LN_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,lzcnt,popcnt,f16c,prefer-vector-width=512")
#endif
#define LN_ISA avx512
#define LN_VECTOR_BYTES 64
#define LN_REGISTERS 32
#define LN_FAST_FMA 1
#include "rows.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
