"""Pooling over NCHW arrays: plain loops, the reference kernels. The twin is csrc/pooling.c.

x (N,C,H,W), y (N,C,OH,OW). Padding holds no values: windows are clipped to the input. The
order of sums is part of the contract: an average adds up each column of its window from
the top, then the columns from the left, and divides once.
"""

import numpy as np

from loopnest.kernels.jit import block, kernel
from loopnest.kernels.lanes import add_lanes, fold

_U = np.uint64


@block
def window(out, stride, pad, size, kernel_size):
    """(first, last, padded) of a window: clipped to the input, and its length with padding."""
    start = out * stride - pad
    end = min(start + kernel_size, size + pad)
    return max(start, 0), min(end, size), end - start


@kernel
def avg_pool2d(
    x, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, include_pad, divisor,
    column_sums, first, last, y,
):  # fmt: skip
    """Output rows [first, last) of the N*C*OH; divisor 0 means the window's size.

    column_sums (W) is work space.
    """
    height, width = x.shape[2], x.shape[3]
    out_h, out_w = y.shape[2], y.shape[3]
    x1, y1 = x.reshape(x.size), y.reshape(y.size)
    for row in range(first, last):
        plane, oh = divmod(row, out_h)
        top, bottom, padded_h = window(oh, stride_h, pad_h, height, kernel_h)
        column_sums[:] = 0
        for h in range(top, bottom):
            start = _U((plane * height + h) * width)
            for w in range(_U(width)):
                column_sums[w] += x1[start + w]
        for ow in range(out_w):
            left, right, padded_w = window(ow, stride_w, pad_w, width, kernel_w)
            total = x1.dtype.type(0)
            for w in range(left, right):
                total += column_sums[w]
            count = padded_h * padded_w if include_pad else (bottom - top) * (right - left)
            count = divisor if divisor else count
            # An empty window (count 0) sums to 0 and stays 0.
            y1[row * out_w + ow] = total / x1.dtype.type(max(count, 1) if divisor == 0 else count)


@kernel
def avg_pool2d_backward(
    dy, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, include_pad, divisor, first, last, dx
):
    """Planes [first, last) of the N*C of dx: each output in order gives its share."""
    height, width = dx.shape[2], dx.shape[3]
    out_h, out_w = dy.shape[2], dy.shape[3]
    dx1, dy1 = dx.reshape(dx.size), dy.reshape(dy.size)
    for plane in range(first, last):
        dx1[plane * height * width : (plane + 1) * height * width] = 0
        for oh in range(out_h):
            top, bottom, padded_h = window(oh, stride_h, pad_h, height, kernel_h)
            for ow in range(out_w):
                left, right, padded_w = window(ow, stride_w, pad_w, width, kernel_w)
                count = padded_h * padded_w if include_pad else (bottom - top) * (right - left)
                count = divisor if divisor else count
                share = dy1[(plane * out_h + oh) * out_w + ow]
                share /= dx1.dtype.type(max(count, 1) if divisor == 0 else count)
                for h in range(top, bottom):
                    for w in range(left, right):
                        dx1[(plane * height + h) * width + w] += share


@kernel
def max_pool2d(
    x, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    first, last, indices, y,
):  # fmt: skip
    """Output rows [first, last) of the N*C*OH; indices (as y, or empty) within the plane.

    The first of equal values wins, the last NaN does (PyTorch's rule); -1 where dilation
    leaves a window without a value.
    """
    height, width = x.shape[2], x.shape[3]
    out_h, out_w = y.shape[2], y.shape[3]
    x1, y1, indices1 = x.reshape(x.size), y.reshape(y.size), indices.reshape(indices.size)
    for row in range(first, last):
        plane, oh = divmod(row, out_h)
        for ow in range(out_w):
            best, best_index = x1.dtype.type(-np.inf), -1
            for i in range(kernel_h):
                h = oh * stride_h - pad_h + i * dilation_h
                if h < 0 or h >= height:
                    continue
                for j in range(kernel_w):
                    w = ow * stride_w - pad_w + j * dilation_w
                    if w < 0 or w >= width:
                        continue
                    value = x1[(plane * height + h) * width + w]
                    if value > best or value != value or best_index < 0:
                        best, best_index = value, h * width + w
            y1[row * out_w + ow] = best
            if indices1.size:
                indices1[row * out_w + ow] = best_index


@kernel
def max_pool2d_backward(dy, indices, first, last, dx):
    """Planes [first, last) of the N*C of dx: each output in order gives to its maximum."""
    plane_size, out_size = dx.shape[2] * dx.shape[3], dy.shape[2] * dy.shape[3]
    dx1, dy1, indices1 = dx.reshape(dx.size), dy.reshape(dy.size), indices.reshape(indices.size)
    for plane in range(first, last):
        dx1[plane * plane_size : (plane + 1) * plane_size] = 0
        for out in range(plane * out_size, (plane + 1) * out_size):
            if indices1[out] >= 0:
                dx1[plane * plane_size + indices1[out]] += dy1[out]


@kernel
def global_avg_pool2d(x, first, last, y):
    """Means of planes [first, last), summed in 16 lanes."""
    size = x.shape[2] * x.shape[3]
    x1, y1 = x.reshape(x.size), y.reshape(y.size)
    lanes = np.empty(16, x.dtype)
    for plane in range(first, last):
        lanes[:] = 0
        add_lanes(lanes, x1, plane * size, size)
        y1[plane] = fold(lanes) / x1.dtype.type(size)


@kernel
def global_max_pool2d(x, first, last, y):
    """Maxima of planes [first, last); NaN if there is one."""
    size = x.shape[2] * x.shape[3]
    x1, y1 = x.reshape(x.size), y.reshape(y.size)
    for plane in range(first, last):
        best = x1[plane * size]
        for i in range(plane * size, (plane + 1) * size):
            if x1[i] > best or x1[i] != x1[i]:
                best = x1[i]
        y1[plane] = best
