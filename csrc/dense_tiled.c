/* dense_tiled.c: dense layers in register tiles, blocks of samples by panels of outputs; the
 * twin is kernels/dense_tiled.py.
 *
 * x (samples, inputs), weight (inputs, outputs), y (samples, outputs). A panel is some columns
 * of the weight, [input][column]. The work is a range of tasks, for each panel one for each
 * block of samples. Panels and blocks have one size, of which a tile covers a part. */

#ifndef LN_DENSE_TILED_H
#define LN_DENSE_TILED_H
#define DENSE_PANEL (SAMPLE_VECTORS * WIDEST_VECTOR / REAL_BYTES)
#define TASK_SAMPLES 8
#define FEWEST_SAMPLES 4 /* below: a matter of memory, the plain loop serves */
#define COPY_FROM 32 /* samples from which copying each panel pays: aligned and in one piece */
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
    p->work = inputs * (DENSE_PANEL + TASK_SAMPLES) + DENSE_PANEL;
    p->taps = inputs;
}

void OP(linear_tiled)(const real *x, const real *weight, const real *bias, const real *packed,
                      int64_t samples, int64_t inputs, int64_t outputs, int64_t first,
                      int64_t last, real *work, int64_t *taps, real *y)
{
    real *own = work, *own_bias = own + inputs * DENSE_PANEL;
    real *rest = own_bias + DENSE_PANEL; /* the last samples, as a whole block */
    int64_t deep = ceil_div(samples, TASK_SAMPLES), current = -1;
    const real *panel = NULL, *b = NULL;
    int has_rest = 0;
    for (int64_t task = first; task < last; task++) {
        int64_t number = task / deep, from = task % deep * TASK_SAMPLES;
        int64_t column = number * DENSE_PANEL, width = least(DENSE_PANEL, outputs - column);
        if (number != current) {
            current = number;
            int64_t step = DENSE_PANEL;
            if (packed) {
                panel = packed + number * inputs * DENSE_PANEL;
            } else if (width < DENSE_PANEL || samples >= COPY_FROM) {
                F(copy_matrix)(weight + column, outputs, inputs, width, own, DENSE_PANEL);
                panel = own;
            } else {
                panel = weight + column;
                step = outputs;
            }
            for (int64_t i = 0; i < inputs; i++) taps[i] = i * step;
            if (bias) {
                F(copy_matrix)(bias + column, 0, 1, width, own_bias, DENSE_PANEL);
                b = own_bias;
            }
        }
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
                F(samples)(a + i * inputs, inputs, panel + j, taps, inputs, b ? b + j : NULL,
                           y + (from + i) * outputs + column + j, outputs, height - i, width - j);
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
