"""Which input channel each output channel of a layer depends on, found by moving sets of them.

The sets are the bits of the channel's number and their complements, so that about 2 log2 C runs tell for each output
channel which input channel it depends on, or that it depends on several.
"""

from __future__ import annotations

import math

import numpy as np

from .trial import Doubt, Trial

_SCALES = (0.1, 1.0, 10.0, 100.0)


def sources_of(trial: Trial, index: int, axis: int, shapes: list[tuple[int, ...]]) -> np.ndarray:
    """For each output channel, the one channel of input `index` that it depends on, or -1."""
    count = shapes[index][axis]
    bits = max(1, math.ceil(math.log2(count)))
    numbers = np.arange(count)
    along = [-1 if place == axis else 1 for place in range(len(shapes[index]))]
    hits = np.zeros((2, bits, trial.size), dtype=bool)
    for scale in _SCALES:
        for sign in (1.0, -1.0, 0.0):
            inputs = trial.inputs(shapes, scale, sign)
            before = trial.run(inputs)
            if not np.array_equal(before, trial.run(inputs, again=True), equal_nan=True):
                raise Doubt("it gives different answers to the same question")
            for bit in range(bits):
                for value in (0, 1):
                    chosen = ((numbers >> bit) & 1 == value).reshape(along)
                    moved = list(inputs)
                    moved[index] = np.where(chosen, trial.moved(inputs[index], scale, sign), inputs[index])
                    after = trial.run(moved)
                    differs = (after != before) & ~(np.isnan(after) & np.isnan(before))
                    hits[value, bit] |= np.moveaxis(differs, trial.output_axis, -1).reshape(-1, hits.shape[-1]).any(0)
            if (hits[0] & hits[1]).any():
                raise Doubt("it mixes channels")
    found = (hits[1] * (1 << np.arange(bits))[:, None]).sum(axis=0)
    return np.where(hits.any(axis=(0, 1)), found, -1)
