/* dense_tiled.c: dense layers and their gradients in register tiles; the twin is
 * kernels/dense_tiled.py, where the method is told. */

#ifndef LN_DENSE_TILED_H
#define LN_DENSE_TILED_H
#define DENSE_PANEL (SAMPLE_VECTORS * WIDEST_VECTOR / REAL_BYTES)
#define FEWEST_ROWS 4 /* below: a matter of memory, the plain loop serves */
#define COPY_FROM 32 /* rows from which copying each slice pays: aligned and in one piece */
#define SLICE 132 /* terms, at most: 33 KB of 48 */
#define MOST_BLOCKS 128 /* whose sums are kept: 192 KB */
#endif

/* One product, out[r][c] = sum over t of A[r][t] B[t][c]. */
typedef struct {
    int64_t rows, terms, columns;
    const real *a;
    int64_t a_step, a_term; /* from row to row, from term to term */
    const real *b; /* (terms, columns); if turned (columns, terms) */
    const real *packed, *bias; /* or NULL */
    int turned; /* out is (columns, rows), its transpose */
    real *out;
} F(dense);

/* target[i][j] = source[i][j] for j < columns, zeros up to the end of target's row. */
static void F(copy_matrix)(const real *source, int64_t source_step, int64_t rows, int64_t columns,
                           real *target, int64_t target_step)
{
    for (int64_t i = 0; i < rows; i++) {
        F(copy_numbers)(source + i * source_step, columns, target + i * target_step);
        F(clear)(target + i * target_step + columns, target_step - columns);
    }
}

/* target[j][i] = source[i][j]; zeros up to the end of target's row if `fill`. */
static void F(copy_transposed)(const real *source, int64_t source_step, int64_t rows, int64_t columns,
                               real *target, int64_t target_step, int fill)
{
    for (int64_t i = 0; i < (fill ? target_step : rows); i += LANES)
        for (int64_t j = 0; j < columns; j += LANES) {
            F(vec) v[LANES];
            int64_t wide = columns - j, high = rows - i;
            UNROLL for (int64_t l = 0; l < LANES; l++)
                v[l] = l < high ? F(load_first)(source + (i + l) * source_step + j, wide) : (F(vec)){0};
            F(transpose)(v);
            UNROLL for (int64_t l = 0; l < LANES; l++)
                if (l < wide)
                    F(store_first)(target + (j + l) * target_step + i, v[l], (fill ? target_step : rows) - i);
        }
}

static int64_t F(slice_terms)(int64_t terms)
{
    return ceil_div(terms, ceil_div(terms, SLICE) + !terms);
}

/* The product that a form (LN_LINEAR...) is. */
static F(dense) F(product_of)(int64_t form, const real *a, const real *b, int64_t samples,
                              int64_t inputs, int64_t outputs, real *out)
{
    if (form == LN_LINEAR_BACKWARD_INPUT)
        return (F(dense)){inputs, outputs, samples, b, outputs, 1, a, NULL, NULL, 1, out};
    if (form == LN_LINEAR_BACKWARD_WEIGHT)
        return (F(dense)){inputs, samples, outputs, a, 1, inputs, b, NULL, NULL, 0, out};
    return (F(dense)){samples, inputs, outputs, a, inputs, 1, b, NULL, NULL, 0, out};
}

void OP(linear_plan)(int64_t form, int64_t samples, int64_t inputs, int64_t outputs, ln_linear_plan *p)
{
    F(dense) d = F(product_of)(form, NULL, NULL, samples, inputs, outputs, NULL);
    int64_t deep = ceil_div(d.rows, SAMPLE_ROWS);
    *p = (ln_linear_plan){0};
    if (d.rows < FEWEST_ROWS || samples * inputs * outputs < PLAIN_BELOW || !LN_FAST_FMA)
        return;
    p->tasks = deep * ceil_div(d.columns, DENSE_PANEL);
    p->work = (F(slice_terms)(d.terms) + least(deep, MOST_BLOCKS) * SAMPLE_ROWS + 1) * DENSE_PANEL
              + d.terms * SAMPLE_ROWS;
}

/* The tiles of one block of rows: columns from left to right, the widest tile that they fill. */
static void F(tiles_of_block)(const F(dense) *p, const real *a, int64_t a_step, int64_t a_term,
                              const real *b, int64_t b_step, int64_t count, const real *ahead,
                              int64_t ahead_step, real *sums, int starts, int ends, const real *bias,
                              int64_t row, int64_t column, int64_t height, int64_t width)
{
    int64_t step = p->turned ? p->rows : p->columns, nv;
    int few = height <= FEW_SAMPLE_ROWS;
    for (int64_t j = 0; j < width; j += nv * LANES) {
        int64_t wide = width - j;
        const real *more = bias ? bias + j : NULL;
        real *y = ends && !p->turned ? p->out + row * step + column + j : NULL;
#define CALL(mr, nv) \
    F(samples_##mr##x##nv)(a, a_step, a_term, b + j, b_step, count, ahead, ahead_step, sums, starts, \
                           more, y, step, height, wide)
#if LN_REGISTERS == 32
        nv = wide > 3 * LANES ? 4 : wide > LANES ? 2 : 1;
        if (nv == 4 && few)
            CALL(4, 4);
        else if (nv == 4)
            CALL(6, 4);
        else
#else
        nv = wide > LANES ? 2 : 1;
#endif
        if (nv == 2 && few)
            CALL(4, 2);
        else if (nv == 2)
            CALL(6, 2);
        else if (few)
            CALL(4, 1);
        else
            CALL(6, 1);
#undef CALL
        if (ends && p->turned)
            F(copy_transposed)(sums, nv * LANES, height, least(wide, nv * LANES),
                               p->out + (column + j) * step + row, step, 0);
        sums += SAMPLE_ROWS * nv * LANES;
    }
}

/* Tasks [first, last): for each panel of columns one for each block of rows. */
static void F(multiply_dense)(const F(dense) *p, int64_t first, int64_t last, real *work)
{
    int64_t deep = ceil_div(p->rows, SAMPLE_ROWS), terms = F(slice_terms)(p->terms), blocks;
    int64_t panel = DENSE_PANEL;
    real *own = work, *sums = own + terms * panel;
    real *own_bias = sums + least(deep, MOST_BLOCKS) * SAMPLE_ROWS * panel;
    real *rest = own_bias + panel; /* the last rows, as a whole block: [term][row] */
    int has_rest = 0;
    for (int64_t task = first; task < last; task += blocks) {
        int64_t number = task / deep, part = task % deep;
        int64_t column = number * panel, width = least(panel, p->columns - column);
        blocks = least(least(last - task, deep - part), MOST_BLOCKS);
        int copied = !p->packed && (p->turned || width < panel || p->rows >= COPY_FROM);
        int64_t step = p->packed || copied ? panel : p->columns;
        if (p->bias)
            F(copy_matrix)(p->bias + column, 0, 1, width, own_bias, panel);
        for (int64_t start = 0; start < p->terms; start += terms) {
            int64_t count = least(terms, p->terms - start);
            const real *slice, *next = NULL;
            if (p->packed) {
                slice = p->packed + (number * p->terms + start) * panel;
            } else if (p->turned) {
                F(copy_transposed)(p->b + column * p->terms + start, p->terms, width, count, own, panel, 1);
                slice = own;
            } else {
                slice = p->b + start * p->columns + column;
                if (copied) {
                    next = start + count < p->terms ? slice + count * p->columns : NULL;
                    F(copy_matrix)(slice, p->columns, count, width, own, panel);
                    slice = own;
                }
            }
            for (int64_t block = 0; block < blocks; block++) {
                int64_t row = (part + block) * SAMPLE_ROWS, height = least(SAMPLE_ROWS, p->rows - row);
                const real *a = p->a + row * p->a_step + start * p->a_term;
                int64_t a_step = p->a_step, a_term = p->a_term;
                if (height < SAMPLE_ROWS && height != FEW_SAMPLE_ROWS) {
                    if (!has_rest && a_term == 1)
                        F(copy_transposed)(p->a + row * a_step, a_step, height, p->terms, rest, SAMPLE_ROWS, 1);
                    else if (!has_rest)
                        F(copy_matrix)(p->a + row, a_term, p->terms, height, rest, SAMPLE_ROWS);
                    has_rest = 1;
                    a = rest + start * SAMPLE_ROWS;
                    a_step = 1;
                    a_term = SAMPLE_ROWS;
                }
                int fetch = next && block < SAMPLE_VECTORS;
                F(tiles_of_block)(p, a, a_step, a_term, slice, step, count,
                                  fetch ? next + block * LANES : a, fetch ? p->columns : 0,
                                  sums + block * SAMPLE_ROWS * panel, start == 0, start + count == p->terms,
                                  p->bias ? own_bias : NULL, row, column, height, width);
            }
        }
    }
}

void OP(linear_tiled)(int64_t form, const real *a, const real *b, const real *bias,
                      const real *packed, int64_t samples, int64_t inputs, int64_t outputs,
                      int64_t first, int64_t last, real *work, real *y)
{
    F(dense) d = F(product_of)(form, a, b, samples, inputs, outputs, y);
    d.bias = bias;
    d.packed = packed;
    F(multiply_dense)(&d, first, last, work);
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
