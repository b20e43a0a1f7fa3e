/* filter.c: edges of an image, thinned out: convolution, rectifier, pooling.
 *
 * The image is made here: a bright disc on a dark ground. Sobel's two filters find its edge, max
 * pooling keeps the strongest response of each 8x8 block, and the map of it is printed. */
#include <loopnest.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIZE = 128, BLOCK = 8, CELLS = SIZE / BLOCK };

int main(void)
{
    float *image = malloc(sizeof *image * SIZE * SIZE);
    float *edges = malloc(sizeof *edges * 2 * SIZE * SIZE);
    float strongest[2 * CELLS * CELLS];
    const float sobel[2 * 3 * 3] = {
        -1, 0, 1, -2, 0, 2, -1, 0, 1, /* left to right */
        -1, -2, -1, 0, 0, 0, 1, 2, 1, /* top to bottom */
    };
    if (!image || !edges)
        return 1;
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            int y = i - SIZE / 2, x = j - SIZE / 2;
            image[i * SIZE + j] = x * x + y * y < 40 * 40 ? 1.0f : 0.0f;
        }

    ln_conv2d_shape conv = {
        .n = 1, .c = 1, .h = SIZE, .w = SIZE, .k = 2, .r = 3, .s = 3, .oh = SIZE, .ow = SIZE,
        .stride_h = 1, .stride_w = 1, .top = 1, .left = 1,
        .dilation_h = 1, .dilation_w = 1, .groups = 1,
    };
    ln_conv2d_f32(image, sobel, NULL, &conv, 0, conv.n * conv.k * conv.oh, edges);
    ln_relu_f32(edges, 2 * SIZE * SIZE, edges);
    ln_pool2d_shape pool = {
        .h = SIZE, .w = SIZE, .oh = CELLS, .ow = CELLS, .kernel_h = BLOCK, .kernel_w = BLOCK,
        .stride_h = BLOCK, .stride_w = BLOCK, .dilation_h = 1, .dilation_w = 1,
    };
    float *work = malloc((size_t)ln_max_pool2d_work(&pool) * sizeof *work);
    if (!work)
        return 1;
    ln_max_pool2d_f32(edges, &pool, work, 0, 2 * CELLS, strongest);
    free(work);

    float total = 0;
    for (int i = 0; i < CELLS; i++) {
        for (int j = 0; j < CELLS; j++) {
            float across = strongest[i * CELLS + j];
            float down = strongest[(CELLS + i) * CELLS + j];
            putchar(across > 0 && down > 0 ? '+' : across > 0 ? '|' : down > 0 ? '-' : ' ');
            total += across + down;
        }
        putchar('\n');
    }
    printf("%s, sum %g\n", ln_isa(), total);
    free(image);
    free(edges);
    return 0;
}
