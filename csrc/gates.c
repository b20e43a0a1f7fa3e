/* gates.c: two-input gates as small networks, element-wise, in place allowed; the twin is
 * kernels/gates.py, where the layout of the weights is told. */

/* Pre-activation of one neuron, w = (wa, wb, bias): the bias comes last. */
static inline real F(neuron)(real a, real b, const real *w)
{
    return FMA(b, w[1], a * w[0]) + w[2];
}

void OP(gate_forward)(const real *a, const real *b, int64_t n, const real *weights, int64_t hidden,
                      real *y)
{
    real w[9] = {0};
    memcpy(w, weights, (hidden ? 9 : 3) * sizeof(real));
    if (!hidden) {
        INDEPENDENT for (int64_t i = 0; i < n; i++) y[i] = F(sigmoid)(F(neuron)(a[i], b[i], w));
        return;
    }
    INDEPENDENT for (int64_t i = 0; i < n; i++) {
        real h1 = F(relu)(F(neuron)(a[i], b[i], w));
        real h2 = F(relu)(F(neuron)(a[i], b[i], w + 3));
        y[i] = F(sigmoid)(F(neuron)(h1, h2, w + 6));
    }
}
