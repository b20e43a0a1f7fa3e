/* row_list.h: the rows; a new op family is a line here. */
#include "lanes.h"
#include "scalar_functions.h"

#include "activation.c"
#include "convolution.c"
#include "gates.c"
#include "logic.c"
#include "pooling.c"
#include "dense.c"
#include "loss.c"
#include "optimizer.c"
#include "descent.c"
