/* logic_bits.c: hard logic networks on bits; the twin is kernels/logic_bits.py, where state and
 * program are told. */

enum { LOGIC_WORDS = 8, LOGIC_BATCH = 512, LOGIC_FEATURE = 2, LOGIC_PLANES = 40 };

/* A row of state; the compiler splits it where registers are narrower. Loops over the words
 * would not be vectorised: rows might overlap, for all that the compiler knows. */
typedef uint64_t F(row) __attribute__((vector_size(8 * LOGIC_WORDS), aligned(8), may_alias));

static inline const F(row) *F(row_at)(const uint64_t *state, int32_t index)
{
    return (const F(row) *)(state + (int64_t)index * LOGIC_WORDS);
}

/* Bit i of bits[f] is x[row + i][f]; rows at `rows` and beyond count as 0. Returns the bits of
 * all values. */
static inline uint8_t F(pack_eight)(const uint8_t *x, int64_t row, int64_t rows, int64_t features,
                                    uint8_t *restrict bits)
{
    uint8_t every = 0;
    x += row * features;
    if (row + 8 <= rows) {
        const uint8_t *x1 = x + features, *x2 = x1 + features, *x3 = x2 + features;
        const uint8_t *x4 = x3 + features, *x5 = x4 + features, *x6 = x5 + features;
        const uint8_t *x7 = x6 + features;
        for (int64_t f = 0; f < features; f++) {
            every |= x[f] | x1[f] | x2[f] | x3[f] | x4[f] | x5[f] | x6[f] | x7[f];
            uint8_t low = (uint8_t)(x[f] + 2 * x1[f] + 4 * x2[f] + 8 * x3[f]);
            uint8_t high = (uint8_t)(x4[f] + 2 * x5[f] + 4 * x6[f] + 8 * x7[f]);
            bits[f] = (uint8_t)(low + 16 * high);
        }
        return every;
    }
    memset(bits, 0, features);
    for (int64_t i = 0; i < rows - row; i++)
        for (int64_t f = 0; f < features; f++) {
            every |= x[i * features + f];
            bits[f] |= (uint8_t)(x[i * features + f] << i);
        }
    return every;
}

/* bits: 8 * features bytes of work space */
void OP(logic_pack)(const uint8_t *x, int64_t rows, int64_t features, int64_t first, uint8_t *bits,
                    uint8_t *seen, uint64_t *state)
{
    uint64_t *out = state + LOGIC_FEATURE * LOGIC_WORDS;
    for (int64_t word = 0; word < LOGIC_WORDS; word++) {
        int64_t start = first + 64 * word;
        if (start >= rows) {
            for (int64_t f = 0; f < features; f++) out[f * LOGIC_WORDS + word] = 0;
            continue;
        }
        for (int64_t j = 0; j < 8; j++) {
            int64_t row = start + 8 * j < rows ? start + 8 * j : rows;
            *seen |= F(pack_eight)(x, row, rows, features, bits + j * features);
        }
        const uint8_t *b = bits;
        int64_t n = features;
        for (int64_t f = 0; f < n; f++) {
            uint64_t low = b[f] | (uint64_t)b[n + f] << 8 | (uint64_t)b[2 * n + f] << 16
                           | (uint64_t)b[3 * n + f] << 24;
            uint64_t high = b[4 * n + f] | (uint64_t)b[5 * n + f] << 8
                            | (uint64_t)b[6 * n + f] << 16 | (uint64_t)b[7 * n + f] << 24;
            out[f * LOGIC_WORDS + word] = low | high << 32;
        }
    }
}

void OP(logic_run)(const int32_t *gates, const int64_t *ends, int64_t runs, uint64_t *state)
{
    memset(state, 0, LOGIC_WORDS * sizeof *state);
    memset(state + LOGIC_WORDS, 0xff, LOGIC_WORDS * sizeof *state);
    int64_t g = 0;
    for (int64_t run = 0; run < runs; run++) {
        uint64_t f00 = run >> 3 & 1, f01 = run >> 2 & 1, f10 = run >> 1 & 1, f11 = run & 1;
        uint64_t m0 = -f00, m1 = -(f00 ^ f10), m2 = -(f00 ^ f01), m3 = -(f00 ^ f01 ^ f10 ^ f11);
        for (; g < ends[run]; g++) {
            F(row) a = *F(row_at)(state, gates[3 * g]), b = *F(row_at)(state, gates[3 * g + 1]);
            *(F(row) *)F(row_at)(state, gates[3 * g + 2]) = (m0 ^ (m1 & a)) ^ ((m2 ^ (m3 & a)) & b);
        }
    }
}

/* A carry-save adder: *sum + b + c = 2 * result + *sum. */
static inline F(row) F(carry)(F(row) *sum, F(row) b, F(row) c)
{
    F(row) odd = *sum ^ b, result = (*sum & b) | (c & odd);
    *sum = odd ^ c;
    return result;
}

/* planes[j] = bit j of the number of ones among the rows, for each sample: 8 rows enter the
 * adders, one row of weight 8 leaves (Harley and Seal). */
static inline void F(logic_planes)(const uint64_t *state, const int32_t *outputs, int64_t rows,
                                   F(row) planes[LOGIC_PLANES])
{
    F(row) ones = {0}, twos = {0}, fours = {0};
    memset(planes, 0, LOGIC_PLANES * sizeof planes[0]);
    for (int64_t r = 0; r < rows; r += 8) {
        const int32_t *at = outputs + r;
        F(row) a = F(carry)(&ones, *F(row_at)(state, at[0]), *F(row_at)(state, at[1]));
        F(row) b = F(carry)(&ones, *F(row_at)(state, at[2]), *F(row_at)(state, at[3]));
        F(row) four = F(carry)(&twos, a, b);
        a = F(carry)(&ones, *F(row_at)(state, at[4]), *F(row_at)(state, at[5]));
        b = F(carry)(&ones, *F(row_at)(state, at[6]), *F(row_at)(state, at[7]));
        F(row) carry = F(carry)(&fours, four, F(carry)(&twos, a, b));
        int j = 3; /* a ripple as far as a counter of the groups would go */
        for (int64_t step = r / 8 + 1; step; step >>= 1, j++) {
            F(row) plane = planes[j];
            planes[j] = plane ^ carry;
            carry &= plane;
        }
    }
    planes[0] = ones;
    planes[1] = twos;
    planes[2] = fours;
}

void OP(logic_count)(const uint64_t *state, const int32_t *outputs, int64_t rows, int64_t samples,
                     int64_t classes, int64_t first, int32_t *scores)
{
    F(row) planes[LOGIC_PLANES];
    int depth = 3;
    while (rows >> depth) depth++;
    for (int64_t k = 0; k < classes; k++) {
        F(logic_planes)(state, outputs + k * rows, rows, planes);
        for (int64_t word = 0; word < LOGIC_WORDS && first + 64 * word < samples; word++) {
            int64_t start = first + 64 * word, count = samples - start < 64 ? samples - start : 64;
            uint64_t counts[64] = {0};
            for (int j = 0; j < depth; j++)
                for (uint64_t s = 0; s < 64; s++) counts[s] += (planes[j][word] >> s & 1) << j;
            for (int64_t s = 0; s < count; s++)
                scores[(start + s) * classes + k] = (int32_t)counts[s];
        }
    }
}

void OP(logic_label)(const int32_t *scores, int64_t classes, int64_t first, int64_t last,
                     int64_t *labels)
{
    for (int64_t row = first; row < last; row++) {
        const int32_t *at = scores + row * classes;
        int64_t label = 0;
        for (int64_t k = 1; k < classes; k++)
            if (at[k] > at[label])
                label = k;
        labels[row] = label;
    }
}
