"""The operations: a file a family, with checks, outputs and the call of a kernel."""
