/* simd.h: what every row (activation.c, convolution.c, ...) is written in.
 *
 * A row is written once, in terms of `real`, and compiled for float and double in
 * each instruction set: isa_*.c select the set, rows.h includes the rows twice.
 *
 *   real        float or double, REAL_BYTES long
 *   F(name)     a static helper of this row:      name_f32
 *   OP(name)    an exported kernel of this set:   ln_name_f32_avx512
 *   FMA(a,b,c)  a*b + c rounded once
 *   SQRT(a)     square root, correctly rounded
 *   MM512(name) x86 intrinsic for this type:     _mm512_name_ps, MM256 likewise
 *
 * Of the instruction set: LN_VECTOR_BYTES and LN_REGISTERS of its vectors, LN_FAST_FMA where
 * it fuses in hardware.
 *
 * dispatch.c defines the public ln_name_f32 that picks a set at the first call.
 */
#ifndef LN_SIMD_H
#define LN_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LN_PASTE2_(a, b) a##_##b
#define LN_PASTE2(a, b) LN_PASTE2_(a, b)
#define LN_PASTE3_(a, b, c) a##_##b##_##c
#define LN_PASTE3(a, b, c) LN_PASTE3_(a, b, c)
#define LN_PASTE4_(a, b, c, d) a##_##b##_##c##_##d
#define LN_PASTE4(a, b, c, d) LN_PASTE4_(a, b, c, d)

#define F(name) LN_PASTE2(name, SUFFIX)
#define OP(name) LN_PASTE4(ln, name, SUFFIX, LN_ISA)

/* x86 has three instruction sets to choose from at run time; elsewhere (aarch64) the
 * compiler's default is the only one. */
#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
#define LN_X86 1
#else
#define LN_X86 0
#endif

/* The iterations of the next loop are independent even where output and input are the
 * same array (in place): without this the compiler's overlap check takes the slow path. */
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define INDEPENDENT _Pragma("GCC ivdep")
#else
#define INDEPENDENT
#endif

#endif
