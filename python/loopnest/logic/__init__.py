"""Networks of logic gates: training, packing, circuits, C and Verilog."""
