"""Phases of the gradient of a strided convolution: plain integers, for Python and compiled code.

Nothing here needs Numba, so that the C backend works without it; whole.py compiles the function.
"""


def phase(position, kernel, stride, before, dilation):
    """(first tap, step between taps, count of taps, dilation, padding before) of a gradient's phase.

    Position p of dx along an axis gets dy[(p + before - tap dilation) / stride] where that is
    whole. So the positions p, p + stride, ... of a phase are a convolution of stride 1 of dy with
    those taps, flipped. The count is 0 where no tap reaches the phase.
    """
    divisor, rest = stride, dilation
    while rest:  # the greatest common divisor
        divisor, rest = rest, divisor % rest
    apart = stride // divisor
    tap = 0
    while tap < min(apart, kernel) and (position + before - tap * dilation) % stride:
        tap += 1
    if tap == min(apart, kernel):
        return 0, apart, 0, 1, 0
    step, count = apart * dilation // stride, -(-(kernel - tap) // apart)
    shift = (position + before - tap * dilation) // stride
    return tap, apart, count, step, (count - 1) * step - shift
