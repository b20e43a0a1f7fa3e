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
#define COPY_FROM 128 /* samples from which copying each panel pays: aligned and in one piece */
#endif

static void F(copy_matrix)(const real *source, int64_t source_step, int64_t rows, int64_t columns,
                           real *target, int64_t target_step)
{
    for (int64_t i = 0; i < rows; i++)
        F(copy_rows)(source + i * source_step, 0, 1, target + i * target_step, 0, 1, columns);
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
                for (int64_t j = 0; j < DENSE_PANEL; j++) own_bias[j] = j < width ? bias[column + j] : 0;
                b = own_bias;
            }
        }
        int64_t height = least(TASK_SAMPLES, samples - from);
        const real *a = x + from * inputs;
        if (height < TASK_SAMPLES) {
            F(copy_matrix)(a, inputs, height, inputs, rest, inputs);
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
