"""OpenCV: image filters on one plane, and pooling where a filter does the same."""

from __future__ import annotations

import numpy as np
from cases import Case
from peers import Peer, version
from timing import Prepared


class OpenCV(Peer):
    name = "opencv"
    requires = ("cv2",)

    def version(self) -> str:
        import cv2

        found = version("opencv-python-headless") or version("opencv-python")
        return found or cv2.__version__

    def settings(self) -> str:
        return "filter2D, dilate, resize(INTER_AREA), dst reused"

    def set_threads(self, count: int) -> None:
        import cv2

        super().set_threads(count)
        cv2.setNumThreads(count)

    def exp(self, case: Case, x):
        import cv2

        # An array of one dimension would become a column, which is slower.
        row = x.reshape(1, -1)
        y = np.empty_like(row)
        return Prepared(cv2.exp, (row, y), result=lambda raw: raw.reshape(x.shape))

    def conv2d(self, case: Case, x, weight, bias=None):
        import cv2

        o, (r, s) = case.options, weight.shape[2:]
        one_plane = x.shape[:2] == (1, 1) and len(weight) == 1
        centred = o.get("padding") == "same" or (r == s and o.get("padding") == r // 2)
        plain = not {"stride", "dilation", "activation"} & o.keys()
        if not (one_plane and centred and plain and r % 2 and s % 2):
            raise NotImplementedError("one plane, output of its size")
        y = np.empty_like(x[0, 0])
        options = {"dst": y, "borderType": cv2.BORDER_CONSTANT}
        if bias is not None:
            options["delta"] = float(bias[0])
        return Prepared(
            cv2.filter2D, (x[0, 0], -1, weight[0, 0]), options,
            result=lambda raw: raw[None, None],
        )  # fmt: skip

    def avg_pool2d(self, case: Case, x):
        """Halving an image by area is the mean of 2x2; planes lie below each other."""
        import cv2

        o, (n, c, h, w) = case.options, x.shape
        halves = o["kernel_size"] == 2 and o["stride"] in (None, 2) and not o["padding"]
        if not halves or h % 2 or w % 2:
            raise NotImplementedError("2x2 at stride 2")
        tall = x.reshape(n * c * h, w)
        y = np.empty((n * c * h // 2, w // 2), x.dtype)
        options = {"dst": y, "interpolation": cv2.INTER_AREA}
        return Prepared(
            cv2.resize, (tall, y.shape[::-1]), options,
            result=lambda raw: raw.reshape(n, c, h // 2, w // 2),
        )  # fmt: skip

    def max_pool2d(self, case: Case, x):
        import cv2

        o, k = case.options, case.options["kernel_size"]
        whole = isinstance(k, int) and k % 2 == 1 and o["padding"] == k // 2 and o["stride"] == 1
        if not whole or o.get("return_indices") or o.get("dilation", 1) != 1:
            raise NotImplementedError("odd windows at stride 1")
        planes, y = x.reshape(-1, *x.shape[2:]), np.empty_like(x)
        outs, element = y.reshape(planes.shape), np.ones((k, k), np.uint8)

        def dilate():
            for plane, out in zip(planes, outs, strict=True):
                cv2.dilate(plane, element, dst=out)
            return y

        return Prepared(dilate)


PEERS = (OpenCV,)
