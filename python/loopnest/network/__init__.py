"""Networks: layers, programs of steps, running, compiling, gradients, C."""
