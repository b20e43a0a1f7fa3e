/* dispatch.c: the public functions; each passes its call on to the kernel of the best
 * instruction set this CPU has, found once at the first call. */
#include "include/loopnest.h"
#include "simd.h"

enum { ISA_UNKNOWN, ISA_BASE, ISA_AVX2, ISA_AVX512 };

static const char *const isa_names[] = {"unknown", "base", "avx2", "avx512"};

/* Written once with the same value by whoever comes first, so a race is harmless. */
static volatile int chosen = ISA_UNKNOWN;

static int best_isa(void)
{
#if LN_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return ISA_BASE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("avx512cd"))
        return ISA_AVX512;
    return ISA_AVX2;
#else
    return ISA_BASE;
#endif
}

static inline int isa(void)
{
    if (chosen == ISA_UNKNOWN)
        chosen = best_isa();
    return chosen;
}

const char *ln_isa(void) { return isa_names[isa()]; }

int ln_select_isa(const char *name)
{
    int best = best_isa();
    if (name == NULL || strcmp(name, "best") == 0) {
        chosen = best;
        return 0;
    }
    for (int i = ISA_BASE; i <= best; i++) {
        if (strcmp(name, isa_names[i]) == 0) {
            chosen = i;
            return 0;
        }
    }
    return -1;
}

/* Kernels of every set, declared from the list. */
#define DECLARE(name, suffix, parameters) \
    void ln_##name##_##suffix##_base parameters; \
    void ln_##name##_##suffix##_avx2 parameters; \
    void ln_##name##_##suffix##_avx512 parameters;

#if LN_X86
#define DEFINE(name, suffix, parameters, arguments) \
    DECLARE(name, suffix, parameters) \
    void ln_##name##_##suffix parameters \
    { \
        switch (isa()) { \
        case ISA_AVX512: ln_##name##_##suffix##_avx512 arguments; break; \
        case ISA_AVX2: ln_##name##_##suffix##_avx2 arguments; break; \
        default: ln_##name##_##suffix##_base arguments; \
        } \
    }
#else
#define DEFINE(name, suffix, parameters, arguments) \
    DECLARE(name, suffix, parameters) \
    void ln_##name##_##suffix parameters { ln_##name##_##suffix##_base arguments; }
#endif

#define real float
#define LN_OP(name, parameters, arguments) DEFINE(name, f32, parameters, arguments)
#include "ops.h"
#undef real
#undef LN_OP

#define real double
#define LN_OP(name, parameters, arguments) DEFINE(name, f64, parameters, arguments)
#include "ops.h"
#undef real
#undef LN_OP

#define LN_OP(name, parameters, arguments) DEFINE(name, u64, parameters, arguments)
#include "bit_ops.h"
#undef LN_OP

/* A batch of rows, and what is kept of rows; see pooling.c. */
int64_t ln_max_pool2d_work(const ln_pool2d_shape *d)
{
    int64_t rows = 4096 / d->w < 8 ? 4096 / d->w : 8, kept, wide = d->w > d->ow ? d->w : d->ow;
    rows = rows > 1 ? rows : 1;
    kept = (rows - 1) * d->stride_h + (d->kernel_h - 1) * d->dilation_h + 1;
    kept = kept < d->h ? kept : d->h;
    return rows * d->w + 256 + kept * (wide + 64);
}
