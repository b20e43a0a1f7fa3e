"""Weights packed once, for layers that are called often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from loopnest import backend, checks
from loopnest.window_rules import LIMIT


class PackedWeight:
    """A weight in the order in which the kernels read it; made by `pack_weight`.

    Attributes
    ----------
    shape : tuple of int
        Of the weight it was made from.
    dtype : numpy.dtype
    groups : int
        Groups of the convolution it is for; 1 for a dense layer.
    """

    def __init__(self, weight: np.ndarray, groups: int) -> None:
        self.weight = weight.copy()
        self.weight.setflags(write=False)
        self.groups = groups
        self._packed: dict[str, np.ndarray] = {}
        self.packed()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    @property
    def dtype(self) -> np.dtype:
        return self.weight.dtype

    @property
    def ndim(self) -> int:
        return self.weight.ndim

    def packed(self) -> np.ndarray:
        """The packed numbers for the backend in use, made when it first asks."""
        return self._packed_by(backend.get_backend())

    @property
    def numba_packed(self) -> np.ndarray:
        """The same for callers inside ``@njit``."""
        return self._packed_by("numba")

    def kept(self, form: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Numbers in another form for the backend in use, made when it first asks."""
        key = f"{form} {backend.get_backend()}"
        if key not in self._packed:
            self._packed[key] = make()
        return self._packed[key]

    def _packed_by(self, name: str) -> np.ndarray:
        if name not in self._packed:
            self._packed[name] = _pack(self.weight, self.groups, backend._load(name))
        return self._packed[name]

    def __repr__(self) -> str:
        return f"PackedWeight(shape={self.shape}, dtype={self.dtype}, groups={self.groups})"


def _pack(w: np.ndarray, groups: int, kernels: Any) -> np.ndarray:
    if w.ndim == 2:
        packed = aligned(kernels.dense_tiled.packed_size(*w.shape, w.itemsize), w.dtype)
        kernels.dense_tiled.pack_linear(w, packed)
        return packed
    terms = w.size // len(w) if len(w) else 0
    size = kernels.convolution_tiled.packed_size(len(w), groups, terms, w.itemsize)
    packed = aligned(size, w.dtype)
    kernels.convolution_tiled.pack_conv2d(w, groups, packed)
    return packed


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros that start at a cache line."""
    raw = np.zeros(size * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * dtype.itemsize].view(dtype)


def pack_weight(weight: Any, *, groups: int = 1) -> PackedWeight:
    """Bring a weight into the order in which the kernels read it.

    `conv2d` and `linear` do this in each call; a layer that is called often saves it, a few
    per cent to a third of the time (the less, the more each weight is used in a call). The
    results are the same bits. For algorithm "winograd" of `conv2d` the handle also keeps the
    transformed filters (16/9 of the weight's size), made when they are first asked for.

    Parameters
    ----------
    weight : array_like, shape (K, C/groups, R, S) or (I, O)
        As `conv2d` or `linear` takes it; float32 or float64. It is copied: later changes
        to it do not show.
    groups : int
        Groups of the convolution.

    Returns
    -------
    PackedWeight
        To be passed as ``weight``, with either backend.

    Raises
    ------
    TypeError, ValueError
        For other dtypes, numbers of dimensions or groups.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> handle = ln.pack_weight(np.ones((2, 3), np.float32))
    >>> ln.linear(np.ones((1, 2), np.float32), handle)
    array([[2., 2., 2.]], dtype=float32)
    """
    op = "pack_weight"
    weight = checks.array(op, "weight", weight)
    groups = checks.integer(op, "groups", groups, 1, LIMIT)
    if weight.ndim not in (2, 4):
        raise ValueError(
            f"{op}: weight has {weight.ndim} dimensions, shape {weight.shape}; accepted: "
            "4 (a convolution's) or 2 (a dense layer's)"
        )
    if weight.ndim == 2 and groups != 1:
        raise ValueError(f"{op}: groups is {groups}; accepted: 1 for a dense layer")
    if weight.ndim == 4 and len(weight) % groups:
        raise ValueError(
            f"{op}: groups is {groups}; accepted: a divisor of weight's {len(weight)} filters"
        )
    return PackedWeight(weight, groups)


def unpack(op: str, weight: Any, ndim: int, groups: Any = 1) -> tuple[Any, PackedWeight | None]:
    """A weight argument as (array_like, its handle if it is one)."""
    if not isinstance(weight, PackedWeight):
        return weight, None
    if weight.ndim != ndim:
        raise ValueError(
            f"{op}: weight is packed from shape {weight.shape}; accepted: {ndim} dimensions"
        )
    if weight.groups != groups:
        raise ValueError(
            f"{op}: weight is packed for groups={weight.groups}, groups is {groups}; "
            "accepted: the same"
        )
    return weight.weight, weight
