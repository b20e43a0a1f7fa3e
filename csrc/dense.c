/* dense.c: y = x weight + bias on rows; plain loops, the reference kernels; the twin is
 * kernels/dense.py. One accumulator per output, fused, in ascending order of the summed index. */

void OP(linear)(const real *x, const real *weight, const real *bias, int64_t inputs,
                int64_t outputs, int64_t first, int64_t last, real *y)
{
    for (int64_t m = first; m < last; m++) {
        real *out = y + m * outputs;
        for (int64_t o = 0; o < outputs; o++) out[o] = 0;
        for (int64_t i = 0; i < inputs; i++) {
            real value = x[m * inputs + i];
            const real *row = weight + i * outputs;
            INDEPENDENT for (int64_t o = 0; o < outputs; o++) out[o] = FMA(value, row[o], out[o]);
        }
        if (bias) {
            INDEPENDENT for (int64_t o = 0; o < outputs; o++) out[o] += bias[o];
        }
    }
}

void OP(linear_backward_input)(const real *dy, const real *weight, int64_t inputs,
                               int64_t outputs, int64_t first, int64_t last, real *dx)
{
    for (int64_t m = first; m < last; m++) {
        real *out = dx + m * inputs;
        for (int64_t i = 0; i < inputs; i++) out[i] = 0;
        for (int64_t o = 0; o < outputs; o++) {
            real slope = dy[m * outputs + o];
            INDEPENDENT for (int64_t i = 0; i < inputs; i++)
                out[i] = FMA(slope, weight[i * outputs + o], out[i]);
        }
    }
}

void OP(linear_backward_weight)(const real *x, const real *dy, int64_t rows, int64_t inputs,
                                int64_t outputs, int64_t first, int64_t last, real *dweight)
{
    for (int64_t i = first; i < last; i++) {
        real *out = dweight + i * outputs;
        for (int64_t o = 0; o < outputs; o++) out[o] = 0;
        for (int64_t m = 0; m < rows; m++) {
            real value = x[m * inputs + i];
            const real *slopes = dy + m * outputs;
            INDEPENDENT for (int64_t o = 0; o < outputs; o++)
                out[o] = FMA(value, slopes[o], out[o]);
        }
    }
}

void OP(linear_backward_bias)(const real *dy, int64_t rows, int64_t outputs, real *dbias)
{
    if (rows > LN_RUN) {
        F(sum_columns)(dy, outputs, rows, outputs, dbias);
        return;
    }
    for (int64_t o = 0; o < outputs; o++) dbias[o] = 0;
    for (int64_t m = 0; m < rows; m++) {
        INDEPENDENT for (int64_t o = 0; o < outputs; o++) dbias[o] += dy[m * outputs + o];
    }
}
