"""Rules of windows over images, in whole numbers alone: convolutions and poolings, along one axis.

Python runs these functions as they are. Functions inside ``@njit`` call the same ones compiled, so that
both refuse the same sizes. A result below 0 tells what is wrong; the callers have the words for it.
"""

from __future__ import annotations

# Largest size, stride, padding, dilation or number of groups: products of two stay within 64 bits.
LIMIT = 2**31 - 1

WINDOW_TOO_LARGE = -1
GROUPS_DO_NOT_DIVIDE, OTHER_CHANNELS = -2, -3


def extent(kernel: int, dilation: int) -> int:
    """Elements from the first to the last tap of a kernel."""
    return dilation * (kernel - 1) + 1


def same_padding(kernel: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after an axis that keep its size at stride 1; the odd one comes after."""
    total = extent(kernel, dilation) - 1
    return total // 2, total - total // 2


def window_count(
    size: int, kernel: int, stride: int, before: int, after: int, dilation: int, round_up: bool
) -> int:
    """Outputs along the axis, or WINDOW_TOO_LARGE; PyTorch's rules.

    ``round_up`` is a pooling's ceil_mode: the last window may reach over the end.
    """
    room = size + before + after - extent(kernel, dilation)
    if room < 0:
        return WINDOW_TOO_LARGE
    if not round_up:
        return room // stride + 1
    count = -(-room // stride) + 1
    # The last window must start inside the input or the padding before it.
    return count - 1 if (count - 1) * stride >= size + before else count


def padding_fits(padding: int, kernel: int) -> bool:
    """Whether a pooling's padding is at most half of its window: each window sees an element."""
    return 2 * padding <= kernel


def channels_fault(channels: int, filters: int, group_channels: int, groups: int) -> int:
    """0 if channels, filters and groups of at least 1 fit together, else what does not."""
    if channels % groups != 0 or filters % groups != 0:
        return GROUPS_DO_NOT_DIVIDE
    return 0 if group_channels == channels // groups else OTHER_CHANNELS


def is_winograd(
    kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, dilation_h: int, dilation_w: int
) -> bool:
    """Whether algorithm "winograd" serves: kernel 3 x 3, stride and dilation 1."""
    steps = stride_h == 1 and stride_w == 1 and dilation_h == 1 and dilation_w == 1
    return kernel_h == 3 and kernel_w == 3 and steps
