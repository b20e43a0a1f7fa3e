/* dense_tiled.c: dense layers and their gradients in register tiles; the twin is
 * kernels/dense_tiled.py, where the method is told. */

#ifndef LN_DENSE_TILED_H
#define LN_DENSE_TILED_H
#define DENSE_PANEL (SAMPLE_VECTORS * WIDEST_VECTOR / REAL_BYTES)
#define SLICE 132 /* terms, at most: 33 KB of 48 */
#define SHORT_SLICE 48 /* of few rows */
#define MANY_ROWS 40
#define FAR_ROWS 100 /* the same where B is more bytes than */
#define FAR_BYTES (16 << 20)
#define MOST_BLOCKS 128 /* whose sums are kept: 192 KB */
#define MOST_PANELS 16 /* in one go: a page of float32, of each row of B */
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

/* How a product is cut. */
typedef struct {
    int64_t tall, deep, fours; /* rows of a block, blocks, how many of them are of FEW_SAMPLE_ROWS */
    int64_t panels, slice_terms;
    int64_t most_panels, most_blocks; /* that are worked on in one go */
} F(dense_cut);

static F(dense_cut) F(cut_of)(const F(dense) *p)
{
    F(dense_cut) c = {0};
    c.tall = p->columns <= 2 * LANES ? NARROW_SAMPLE_ROWS : SAMPLE_ROWS;
    c.deep = ceil_div(p->rows, c.tall);
    c.fours = least(c.deep, (c.deep * c.tall - p->rows) / (c.tall - FEW_SAMPLE_ROWS));
    c.panels = ceil_div(p->columns, DENSE_PANEL);
    c.most_blocks = least(c.deep, MOST_BLOCKS);
    c.most_panels = 1;
    int64_t most = SLICE;
    if (!p->turned && !p->packed) {
        c.most_panels = least(c.panels, least(MOST_PANELS, MOST_BLOCKS / (c.deep + !c.deep)));
        c.most_panels += !c.most_panels;
        int64_t bytes = p->terms * c.panels * DENSE_PANEL * (int64_t)sizeof(real);
        if (p->rows < (bytes > FAR_BYTES ? FAR_ROWS : MANY_ROWS))
            most = SHORT_SLICE;
    }
    c.slice_terms = ceil_div(p->terms, ceil_div(p->terms, most) + !p->terms);
    return c;
}

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
    *p = (ln_linear_plan){0};
    if (samples * inputs * outputs < PLAIN_BELOW || !LN_FAST_FMA)
        return;
    F(dense_cut) c = F(cut_of)(&d);
    p->tasks = c.deep * c.panels;
    p->work = (c.slice_terms + c.most_panels * (1 + c.most_blocks * c.tall)) * DENSE_PANEL + c.tall * d.terms;
}

/* The tiles of one block of rows: wide ones, or narrow ones where columns are few. */
static void F(tiles_of_block)(const F(dense) *p, const real *a, int64_t a_step, int64_t a_term,
                              const real *b, int64_t b_step, int64_t count, const real *ahead,
                              int64_t ahead_step, real *sums, int starts, int ends, const real *bias,
                              int64_t row, int64_t column, int64_t height, int64_t width, int64_t tall,
                              real *copy)
{
    int few = height <= FEW_SAMPLE_ROWS, narrow = tall == NARROW_SAMPLE_ROWS;
    int64_t step = p->turned ? p->rows : p->columns, nv = narrow ? 1 : WIDE_SAMPLES;
    for (int64_t j = 0; j < width; j += nv * LANES) {
        int64_t wide = width - j;
        const real *more = bias ? bias + j : NULL;
        real *y = ends && !p->turned ? p->out + row * step + column + j : NULL;
#define CALL(name) \
    F(samples_##name)(a, a_step, a_term, b + j, b_step, count, ahead, ahead_step, sums, starts, more, y, \
                      step, height, wide)
        if (narrow && few)
            CALL(narrow_few);
        else if (narrow)
            CALL(narrow);
        else if (copy)
            F(samples_wide_copying)(a, a_step, a_term, b, b_step, count, copy, sums, starts, more, y, step,
                                    height, wide);
        else if (height == 1)
            CALL(single);
        else if (few)
            CALL(wide_few);
        else
            CALL(wide);
#undef CALL
        if (ends && p->turned)
            F(copy_transposed)(sums, nv * LANES, height, least(wide, nv * LANES),
                               p->out + (column + j) * step + row, step, 0);
        sums += tall * nv * LANES;
    }
}

/* Tasks [first, last): for each panel of columns one for each block of rows. */
static void F(multiply_dense)(const F(dense) *p, int64_t first, int64_t last, real *work)
{
    F(dense_cut) c = F(cut_of)(p);
    int64_t panel = DENSE_PANEL;
    real *own = work, *own_bias = own + (p->packed ? 0 : c.slice_terms * panel);
    real *sums = own_bias + c.most_panels * panel;
    real *rest = sums + c.most_panels * c.most_blocks * c.tall * panel; /* a whole block, [term][row] */
    int has_rest = 0;
    /* Of a row of a copied panel. */
    int64_t own_step = c.tall == NARROW_SAMPLE_ROWS ? ceil_div(p->columns, LANES) * LANES : panel;
    while (first < last) {
        int64_t number = first / c.deep, part = first % c.deep, panels = 1;
        int64_t blocks = least(least(last - first, c.deep - part), c.most_blocks);
        if (blocks == c.deep)
            panels = least((last - first) / c.deep, c.most_panels);
        first += panels * blocks;
        if (p->bias) {
            int64_t width = least(panels * panel, p->columns - number * panel);
            F(copy_matrix)(p->bias + number * panel, 0, 1, width, own_bias, panels * panel);
        }
        for (int64_t start = 0; start < p->terms; start += c.slice_terms)
            for (int64_t k = 0; k < panels; k++) {
                int64_t count = least(c.slice_terms, p->terms - start), step = own_step, next_step = panel;
                int64_t column = (number + k) * panel, width = least(panel, p->columns - column);
                const real *from = p->b + start * p->columns + column, *slice = own, *next = NULL;
                int copying = 0; /* as the first block reads it */
                if (p->packed) {
                    step = panel;
                    slice = p->packed + ((number + k) * p->terms + start) * panel;
                    next = slice + count * panel;
                } else if (p->turned) {
                    F(copy_transposed)(p->b + column * p->terms + start, p->terms, width, count, own, own_step, 1);
                } else {
                    copying = WIDE_SAMPLES * LANES == panel && width == panel && blocks > 1 && part < c.deep - c.fours;
                    if (p->rows < MANY_ROWS && width == panel && !copying) {
                        slice = from;
                        step = p->columns;
                    } else {
                        if (k + 1 < panels)
                            next = from + panel;
                        else if (start + count < p->terms)
                            next = from + count * p->columns - k * panel;
                        next_step = p->columns;
                        if (!copying)
                            F(copy_matrix)(from, p->columns, count, width, own, own_step);
                    }
                }
                for (int64_t j = 0; j < blocks; j++) {
                    int64_t smaller = part + j - (c.deep - c.fours); /* blocks, before this one */
                    int64_t row = (part + j) * c.tall - (smaller > 0 ? smaller : 0) * (c.tall - FEW_SAMPLE_ROWS);
                    int64_t usual = smaller < 0 ? c.tall : FEW_SAMPLE_ROWS;
                    int64_t height = least(usual, p->rows - row);
                    const real *a = p->a + row * p->a_step + start * p->a_term;
                    int64_t a_step = p->a_step, a_term = p->a_term;
                    if (height == 1) {
                        a_step = 0;
                    } else if (height < usual) {
                        if (!has_rest && a_term == 1)
                            F(copy_transposed)(p->a + row * a_step, a_step, height, p->terms, rest, usual, 1);
                        else if (!has_rest)
                            F(copy_matrix)(p->a + row, a_term, p->terms, height, rest, usual);
                        has_rest = 1;
                        a = rest + start * usual;
                        a_step = 1;
                        a_term = usual;
                    }
                    int copies = copying && j == 0;
                    int64_t line = j - copying;
                    int fetch = next && line >= 0 && line < SAMPLE_VECTORS;
                    const real *ahead = a;
                    int64_t ahead_step = 0;
                    if (fetch) {
                        ahead = next + line * LANES;
                        ahead_step = next_step;
                    } else if (a_term != 1) { /* each term in a line of its own */
                        ahead = a + SAMPLES_AHEAD * a_term;
                        ahead_step = a_term;
                    }
                    F(tiles_of_block)(p, a, a_step, a_term, copies ? from : slice,
                                      copies ? p->columns : step, count, ahead, ahead_step,
                                      sums + (k * blocks + j) * c.tall * panel, start == 0,
                                      start + count == p->terms, p->bias ? own_bias + k * panel : NULL,
                                      row, column, height, width, c.tall, copies ? own : NULL);
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
