/* bit_ops.h: the list of kernels on 64-bit integers, as ops.h is that of the float kernels. */

/* logic_bits.c */
LN_OP(logic_pack,
      (const uint8_t *x, int64_t rows, int64_t features, int64_t first, uint8_t *bits,
       uint8_t *seen, uint64_t *state),
      (x, rows, features, first, bits, seen, state))
LN_OP(logic_run,
      (const int32_t *gates, const int64_t *ends, int64_t runs, uint64_t *state),
      (gates, ends, runs, state))
LN_OP(logic_count,
      (const uint64_t *state, const int32_t *outputs, int64_t rows, int64_t samples,
       int64_t classes, int64_t first, int32_t *scores),
      (state, outputs, rows, samples, classes, first, scores))
LN_OP(logic_label,
      (const int32_t *scores, int64_t classes, int64_t first, int64_t last, int64_t *labels),
      (scores, classes, first, last, labels))

/* pooling_indices.c */
LN_OP(indices_outside,
      (const int64_t *indices, int64_t count, int64_t plane_size, int64_t *outside),
      (indices, count, plane_size, outside))
