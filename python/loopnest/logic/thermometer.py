"""Numbers as bits, for logic networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from loopnest.runtime import checks
from loopnest.runtime.copies import Copied

_MOST_BITS = 4096


class Thermometer(Copied):
    """Makes bits of numbers: bit k of a feature is 1 where the feature is above threshold k.

    Parameters
    ----------
    thresholds : array_like
        One number or ``bits`` of them, the same for all features, or (features, bits).

    Raises
    ------
    TypeError, ValueError
        For thresholds that are not finite numbers, or of another shape.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> ln.Thermometer([2, 5])(np.array([[1, 7], [3, 5]]))
    array([[0, 0, 1, 1],
           [1, 0, 1, 0]], dtype=uint8)
    """

    def __init__(self, thresholds: Any) -> None:
        found = checks.array("Thermometer", "thresholds", thresholds)
        found = found.reshape(1) if found.ndim == 0 else found
        if found.ndim > 2 or not found.size:
            raise ValueError(
                f"Thermometer: thresholds has shape {found.shape}; "
                "accepted: (bits,) or (features, bits)"
            )
        if not np.isfinite(found).all():
            raise ValueError("Thermometer: thresholds has values that are not finite")
        self.thresholds = np.sort(found.astype(np.float64), axis=-1)

    def __repr__(self) -> str:
        return f"Thermometer({self.thresholds.tolist()})"

    @property
    def bits(self) -> int:
        """Bits of each feature."""
        return self.thresholds.shape[-1]

    @classmethod
    def uniform(cls, low: float, high: float, bits: int) -> Thermometer:
        """Thresholds that cut the range from low to high into bits + 1 equal parts."""
        op = "Thermometer.uniform"
        low, high = checks.number(op, "low", low), checks.number(op, "high", high)
        if not low < high:
            raise ValueError(f"{op}: low is {low}, high is {high}; accepted: low below high")
        bits = checks.integer(op, "bits", bits, 1, _MOST_BITS)
        return cls(np.linspace(low, high, bits + 2)[1:-1])

    @classmethod
    def quantiles(cls, x: Any, bits: int) -> Thermometer:
        """Thresholds of each feature that cut its values in x into bits + 1 equally large parts."""
        op = "Thermometer.quantiles"
        x = checks.array(op, "x", x, ndim=2)
        bits = checks.integer(op, "bits", bits, 1, _MOST_BITS)
        if not len(x) or not np.isfinite(x).all():
            raise ValueError(f"{op}: x has no samples, or values that are not finite")
        return cls(np.quantile(x, np.linspace(0, 1, bits + 2)[1:-1], axis=0).T)

    def __call__(self, x: Any) -> np.ndarray:
        """Bits of samples.

        Parameters
        ----------
        x : array_like, shape (samples, features)

        Returns
        -------
        ndarray of uint8, shape (samples, features * bits)
            The bits of one feature lie side by side, lowest threshold first.

        Raises
        ------
        TypeError, ValueError
            For another shape, or NaN.
        """
        op = "Thermometer"
        x = checks.array(op, "x", x, ndim=2)
        if self.thresholds.ndim == 2 and len(self.thresholds) != x.shape[1]:
            raise ValueError(
                f"{op}: x has shape {x.shape}; accepted: (samples, {len(self.thresholds)})"
            )
        if np.isnan(x).any():
            raise ValueError(f"{op}: x has NaN; accepted: numbers")
        bits = (x[:, :, None] > self.thresholds).astype(np.uint8)
        return bits.reshape(len(x), x.shape[1] * self.bits)
