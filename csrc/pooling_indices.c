/* pooling_indices.c: the check of what max_pool2d_backward is given; its twin is in
 * kernels/pooling.py. *outside: 1 if an index is not from -1 to plane_size - 1, else 0.
 *
 * The sign bits of each index + 1 and of its distance from the last are gathered: that vectorises. */

void OP(indices_outside)(const int64_t *indices, int64_t count, int64_t plane_size, int64_t *outside)
{
    uint64_t signs = 0, last = (uint64_t)plane_size - 1;
    for (int64_t i = 0; i < count; i++) signs |= ((uint64_t)indices[i] + 1) | (last - (uint64_t)indices[i]);
    *outside = (int64_t)(signs >> 63);
}
