/* train.c: a network of one hidden layer learns the exclusive or, in C alone.
 *
 * x (4,2) -> linear -> tanh -> linear -> sigmoid; binary cross-entropy, whose gradient by the last
 * pre-activation is (sigmoid - target)/rows; Adam. Prints the loss and the four answers. */
#include <loopnest.h>
#include <math.h>
#include <stdio.h>

enum { ROWS = 4, HIDDEN = 8, STEPS = 500 };

/* All weights in one array, so that one call of the optimizer serves them. */
enum { W1 = 0, B1 = W1 + 2 * HIDDEN, W2 = B1 + HIDDEN, B2 = W2 + HIDDEN, COUNT = B2 + 1 };

int main(void)
{
    const double x[ROWS * 2] = {0, 0, 0, 1, 1, 0, 1, 1}, target[ROWS] = {0, 1, 1, 0};
    double w[COUNT], grad[COUNT], m[COUNT] = {0}, v[COUNT] = {0}, power1 = 1, power2 = 1;
    double before[ROWS * HIDDEN], hidden[ROWS * HIDDEN], z[ROWS], y[ROWS];
    double dz[ROWS], dhidden[ROWS * HIDDEN], dbefore[ROWS * HIDDEN], loss = 0;
    unsigned state = 1;
    for (int i = 0; i < COUNT; i++) {
        state = state * 1664525u + 1013904223u; /* Numerical Recipes' generator */
        w[i] = state / 4294967296.0 * 2 - 1;
    }
    for (int step = 1; step <= STEPS; step++) {
        ln_linear_f64(x, w + W1, w + B1, 2, HIDDEN, 0, ROWS, before);
        ln_tanh_f64(before, ROWS * HIDDEN, hidden);
        ln_linear_f64(hidden, w + W2, w + B2, HIDDEN, 1, 0, ROWS, z);
        ln_sigmoid_f64(z, ROWS, y);
        loss = 0;
        for (int i = 0; i < ROWS; i++) {
            loss -= log(target[i] > 0 ? y[i] : 1 - y[i]) / ROWS;
            dz[i] = (y[i] - target[i]) / ROWS;
        }
        ln_linear_backward_weight_f64(hidden, dz, ROWS, HIDDEN, 1, 0, HIDDEN, grad + W2);
        ln_linear_backward_bias_f64(dz, ROWS, 1, grad + B2);
        ln_linear_backward_input_f64(dz, w + W2, HIDDEN, 1, 0, ROWS, dhidden);
        ln_tanh_backward_f64(dhidden, before, ROWS * HIDDEN, dbefore);
        ln_linear_backward_weight_f64(x, dbefore, ROWS, 2, HIDDEN, 0, 2, grad + W1);
        ln_linear_backward_bias_f64(dbefore, ROWS, HIDDEN, grad + B1);
        power1 *= 0.9;
        power2 *= 0.999;
        ln_adam_step_f64(grad, COUNT, 0.05, 0.9, 0.999, 1 - power1, 1 - power2, 1e-8, 0, 0, 0, m, v,
                         NULL, w);
        if (step % 100 == 0)
            printf("step %d, loss %.4f\n", step, loss);
    }
    for (int i = 0; i < ROWS; i++) printf("%g xor %g = %.3f\n", x[2 * i], x[2 * i + 1], y[i]);
    return loss < 0.05 ? 0 : 1;
}
