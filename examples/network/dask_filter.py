"""An image that may be larger than memory, filtered by a network block by block with Dask.

Each block is handed to the network with the margin that its filters reach into; the blocks' results
join into what the whole image gives, bit for bit.

    python examples/network/dask_filter.py --size 4000
"""

from __future__ import annotations

import argparse

import numpy as np

import loopnest as ln

MARGIN = 3  # two 3x3 filters and a 3x3 mean reach three pixels


def edges() -> ln.Sequential:
    """Smooth, take Sobel's slopes both ways and signs, add them up: (1, H, W) to (1, H, W)."""
    net = ln.Sequential(
        *(ln.AvgPool2d(3, 1, 0), ln.Conv2d(1, 4, 3, bias=False), ln.ReLU()),
        ln.Conv2d(4, 1, 3, bias=False),
    )
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
    weights = list(net.parameters.values())
    weights[0][:, 0] = [sobel, sobel.T, -sobel, -sobel.T]
    weights[1][...] = 1 / 9
    return net


def filter_blocks(image, net: ln.Network):
    """The filtered image as a Dask array; ``image`` is one, of shape (H, W)."""
    import dask.array as da

    def block(part: np.ndarray) -> np.ndarray:
        return net(np.ascontiguousarray(part)[None, None])[0, 0]

    margins = {0: MARGIN, 1: MARGIN}
    shared = da.overlap.overlap(image, depth=margins, boundary=0.0)
    return shared.map_blocks(block, dtype=np.float32, chunks=image.chunks)


def main(argv: list[str] | None = None) -> bool:
    import dask.array as da

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--block", type=int, default=512)
    arguments = parser.parse_args(argv)
    net, size = edges(), arguments.size
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    picture = np.sin(20 * x * x) * np.cos(15 * y) + 0.1 * (x > y)
    image = da.from_array(picture.astype(np.float32), chunks=arguments.block)
    result = filter_blocks(image, net).compute(scheduler="threads")
    whole = net(np.pad(picture, MARGIN)[None, None].astype(np.float32))[0, 0]
    equal = result.tobytes() == whole.tobytes()
    print(f"{size} x {size} in {image.npartitions} blocks; same bits as in one piece: {equal}")
    return equal


if __name__ == "__main__":
    main()
