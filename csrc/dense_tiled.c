/* dense_tiled.c: dense layers in register tiles, blocks of samples by panels of outputs; the
 * twin is kernels/dense_tiled.py.
 *
 * x (samples, inputs), weight (inputs, outputs), y (samples, outputs). A panel is some columns
 * of the weight, [input][column]. The work is a range of tasks, for each panel one for each
 * block of samples. Panels and blocks have one size, of which a tile covers a part.
 *
 * A panel is used by many blocks, so it goes by in slices that stay in L1; in between, each
 * block's sums are kept in memory, which leaves the bits as they are. */

#ifndef LN_DENSE_TILED_H
#define LN_DENSE_TILED_H
#define DENSE_PANEL (SAMPLE_VECTORS * WIDEST_VECTOR / REAL_BYTES)
#define TASK_SAMPLES 8
#define FEWEST_SAMPLES 4 /* below: a matter of memory, the plain loop serves */
#define COPY_FROM 32 /* samples from which copying each slice pays: aligned and in one piece */
#define SLICE 128 /* inputs: 24 KB, half of L1 */
#define MOST_BLOCKS 128 /* whose sums are kept: 192 KB */
#define BLOCK_SUMS (TASK_SAMPLES * DENSE_PANEL) /* of a block */
#endif

/* target[i][j] = source[i][j] for j < columns, zeros up to the end of target's row. */
static void F(copy_matrix)(const real *source, int64_t source_step, int64_t rows, int64_t columns,
                           real *target, int64_t target_step)
{
    for (int64_t i = 0; i < rows; i++) {
        F(copy_numbers)(source + i * source_step, columns, target + i * target_step);
        F(clear)(target + i * target_step + columns, target_step - columns);
    }
}

void OP(linear_plan)(int64_t samples, int64_t inputs, int64_t outputs, ln_linear_plan *p)
{
    *p = (ln_linear_plan){0};
    if (samples < FEWEST_SAMPLES || samples * inputs * outputs < PLAIN_BELOW || !LN_FAST_FMA)
        return;
    p->tasks = ceil_div(samples, TASK_SAMPLES) * ceil_div(outputs, DENSE_PANEL);
    p->work = (least(inputs, SLICE) + 1) * DENSE_PANEL + inputs * TASK_SAMPLES
              + least(ceil_div(samples, TASK_SAMPLES), MOST_BLOCKS) * BLOCK_SUMS;
}

void OP(linear_tiled)(const real *x, const real *weight, const real *bias, const real *packed,
                      int64_t samples, int64_t inputs, int64_t outputs, int64_t first,
                      int64_t last, real *work, real *y)
{
    int64_t deep = ceil_div(samples, TASK_SAMPLES), blocks;
    real *own = work, *sums = own + least(inputs, SLICE) * DENSE_PANEL;
    real *own_bias = sums + least(deep, MOST_BLOCKS) * BLOCK_SUMS;
    real *rest = own_bias + DENSE_PANEL; /* the last samples, as a whole block */
    int has_rest = 0;
    for (int64_t task = first; task < last; task += blocks) {
        int64_t number = task / deep, part = task % deep;
        int64_t column = number * DENSE_PANEL, width = least(DENSE_PANEL, outputs - column);
        blocks = least(least(last - task, deep - part), MOST_BLOCKS);
        const real *panel = packed ? packed + number * inputs * DENSE_PANEL : weight + column;
        int copied = !packed && (width < DENSE_PANEL || samples >= COPY_FROM);
        int64_t step = packed || copied ? DENSE_PANEL : outputs;
        if (bias)
            F(copy_matrix)(bias + column, 0, 1, width, own_bias, DENSE_PANEL);
        for (int64_t start = 0; start < inputs; start += SLICE) {
            int64_t count = least(SLICE, inputs - start);
            const real *slice = panel + start * (packed ? DENSE_PANEL : outputs);
            if (copied) {
                F(copy_matrix)(slice, outputs, count, width, own, DENSE_PANEL);
                slice = own;
            }
            for (int64_t block = 0; block < blocks; block++) {
                int64_t from = (part + block) * TASK_SAMPLES;
                int64_t height = least(TASK_SAMPLES, samples - from);
                const real *a = x + from * inputs;
                if (height < TASK_SAMPLES) {
                    if (!has_rest) {
                        F(copy_numbers)(a, height * inputs, rest);
                        F(clear)(rest + height * inputs, (TASK_SAMPLES - height) * inputs);
                        has_rest = 1;
                    }
                    a = rest;
                }
                for (int64_t j = 0; j < width; j += SAMPLE_VECTORS * LANES)
                    for (int64_t i = 0; i < height; i += CHANNEL_ROWS)
                        F(samples)(a + i * inputs + start, inputs, slice + j, step, count,
                                   sums + block * BLOCK_SUMS + i * DENSE_PANEL + j * CHANNEL_ROWS,
                                   start == 0, start + count == inputs, bias ? own_bias + j : NULL,
                                   y + (from + i) * outputs + column + j, outputs, height - i,
                                   width - j);
            }
        }
    }
}

void OP(pack_linear_size)(int64_t inputs, int64_t outputs, int64_t *size)
{
    *size = ceil_div(outputs, DENSE_PANEL) * inputs * DENSE_PANEL;
}

void OP(pack_linear)(const real *weight, int64_t inputs, int64_t outputs, real *packed)
{
    for (int64_t column = 0; column < outputs; column += DENSE_PANEL) {
        F(copy_matrix)(weight + column, outputs, inputs, least(DENSE_PANEL, outputs - column),
                       packed, DENSE_PANEL);
        packed += inputs * DENSE_PANEL;
    }
}

/* Rows [first, last) of out (columns, rows), the transpose of a matrix (rows, columns). */
void OP(transpose)(const real *matrix, int64_t rows, int64_t columns, int64_t first, int64_t last,
                   real *out)
{
    for (int64_t j = first; j < last; j += LANES)
        for (int64_t i = 0; i < rows; i += LANES) {
            F(vec) v[LANES];
            int64_t wide = last - j, high = rows - i;
            UNROLL for (int64_t l = 0; l < LANES; l++)
                v[l] = l < high ? F(load_first)(matrix + (i + l) * columns + j, wide) : (F(vec)){0};
            F(transpose)(v);
            UNROLL for (int64_t l = 0; l < LANES; l++)
                if (l < wide)
                    F(store_first)(out + (j + l) * rows + i, v[l], high);
        }
}
