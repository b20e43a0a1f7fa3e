"""Weights packed once, for layers that are called often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from loopnest.ops.window_rules import LIMIT
from loopnest.runtime import backend, checks
from loopnest.runtime.weights import read_only


class _Forms(dict[str, np.ndarray]):
    """Forms of a weight by name: `PackedWeight` adds them, nobody replaces or removes one."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("PackedWeight: its forms cannot be changed")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse


class PackedWeight:
    """A weight in the order in which the kernels read it; made by `pack_weight`.

    A handle never changes: kernels read its arrays without looking at them. Copies and pickles
    are handles of their own.

    Attributes
    ----------
    shape : tuple of int
        Of the weight it was made from.
    dtype : numpy.dtype
    groups : int
        Groups of the convolution it is for; 1 for a dense layer.
    """

    __slots__ = ("_packed", "_weight", "groups")
    groups: int
    _weight: np.ndarray
    _packed: _Forms

    def __init__(self, weight: Any, groups: int = 1) -> None:
        if hasattr(self, "_packed"):
            raise AttributeError("PackedWeight: it cannot be made anew: a handle never changes")
        weight, groups = _checked(weight, groups)
        object.__setattr__(self, "_weight", read_only(weight.copy()))
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "_packed", _Forms())
        self.packed()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"PackedWeight: {name} cannot be set: a handle never changes")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"PackedWeight: {name} cannot be deleted: a handle never changes")

    def __reduce__(self) -> tuple:
        return PackedWeight, (np.array(self._weight), self.groups)

    @property
    def weight(self) -> np.ndarray:
        """The weight, read-only; a view, so that a change of its shape changes nothing here."""
        return self._weight.view()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._weight.shape

    @property
    def dtype(self) -> np.dtype:
        return self._weight.dtype

    @property
    def ndim(self) -> int:
        return self._weight.ndim

    def packed(self) -> np.ndarray:
        """The packed numbers for the backend in use, made when it first asks."""
        return self._packed_by(backend.get_backend())

    @property
    def numba_packed(self) -> np.ndarray:
        """The same for callers inside ``@njit``."""
        return self._packed_by("numba").reshape(-1)

    def kept(self, form: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Numbers in another form for the backend in use, made when it first asks."""
        return self._form(f"{form} {backend.get_backend()}", make)

    def _packed_by(self, name: str) -> np.ndarray:
        found = self._packed.get(name)
        if found is not None:
            return found
        return self._form(name, lambda: _pack(self._weight, self.groups, backend._load(name)))

    def _form(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._packed:
            dict.__setitem__(self._packed, key, read_only(make()))
        return self._packed[key]

    def __repr__(self) -> str:
        return f"PackedWeight(shape={self.shape}, dtype={self.dtype}, groups={self.groups})"


def _checked(weight: Any, groups: Any) -> tuple[np.ndarray, int]:
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
    return weight, groups


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
    return weight._weight, weight
