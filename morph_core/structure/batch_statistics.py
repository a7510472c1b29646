"""The statistics of BatchNormalization, estimated anew: what a network needs whose channels were just removed.

The layers' running means and variances were gathered, with a momentum, while the network was another one: channels were
still open, and in a short training the momentum has not forgotten the initial values. Here they are computed exactly,
from all batches alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from ..arrays import as_numpy
from ..errors import MorphError


def recalibrate(model: keras.Model, batches: Iterable[Any], steps: int | None = None) -> int:
    """Estimate the statistics of every BatchNormalization anew; weights stay as they are.

    The model runs in training mode, so that each layer sees its input as in training (with Dropout, and normalised by
    the batch's own statistics), and the statistics are those of all positions of all batches together: with n_b
    positions, mean m_b and variance v_b in batch b, N = sum n_b: `mean = sum n_b m_b / N` and
    `variance = sum n_b (v_b + m_b^2) / N - mean^2`. Layers of nested models count, and one that is called several times
    gathers from all its calls. A frozen BatchNormalization (`trainable=False`) keeps its statistics.

    Args:
        model: any built Keras model.
        batches: an iterable of batches as `fit` takes them: x, (x, y) or (x, y, sample_weight); a `tf.data.Dataset`,
            for instance. Batches as large as in training give what training would.
        steps: how many batches to use; all by default.

    Returns:
        How many layers were estimated anew.

    Raises:
        MorphError: there is no batch, or `batches` is an array.

    Example:
        >>> import keras, numpy as np, morph_core as morph
        >>> inputs = keras.Input((2,))
        >>> model = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(inputs))
        >>> morph.recalibrate(model, [np.array([[1.0, 2.0], [3.0, 6.0]], "float32")])
        1
        >>> model.get_layer("norm").moving_mean.numpy().tolist()
        [2.0, 4.0]
    """
    shape = getattr(batches, "shape", None)
    if shape is not None:
        raise MorphError(
            f"recalibrate takes batches, but received one array of shape {tuple(shape)}. Give an iterable, such as a "
            "tf.data.Dataset, or [x] for one batch."
        )
    gathered = [
        _Gathered(layer)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    seen = 0
    with contextlib.ExitStack() as stack:
        for layer in gathered:
            stack.enter_context(layer.watching())
        for batch in batches:
            if seen == steps:
                break
            x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            model(x, training=True)
            seen += 1
        if not seen:
            raise MorphError("recalibrate received no batch: the data is empty, or was read to its end before.")
    for layer in gathered:
        layer.assign()
    return sum(layer.count > 0 for layer in gathered)


class _Gathered:
    """Sums of one BatchNormalization's batch statistics, in float64."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.count = 0.0
        self.first = np.zeros(tuple(layer.moving_mean.shape))
        self.second = np.zeros_like(self.first)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within this, every call of the layer is added, and none leaves a trace in the layer."""
        layer, call, momentum = self.layer, self.layer.call, self.layer.momentum
        before = as_numpy(layer.moving_mean), as_numpy(layer.moving_variance)

        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = call(inputs, *args, **kwargs)
            positions = float(np.prod(inputs.shape)) / self.first.size
            mean = as_numpy(layer.moving_mean).astype(float)
            self.count += positions
            self.first += positions * mean
            self.second += positions * (as_numpy(layer.moving_variance) + mean**2)
            return outputs

        # Without momentum, a call leaves its batch's own statistics where the running ones are kept.
        layer.momentum, layer.call = 0.0, watched
        layer.moving_mean.assign(np.zeros_like(before[0]))
        layer.moving_variance.assign(np.ones_like(before[1]))
        try:
            yield
        finally:
            del layer.call
            layer.momentum = momentum
            layer.moving_mean.assign(before[0])
            layer.moving_variance.assign(before[1])

    def assign(self) -> None:
        """Give the layer what was gathered; nothing when it was not called."""
        if self.count:
            mean = self.first / self.count
            self.layer.moving_mean.assign(mean)
            self.layer.moving_variance.assign(np.maximum(self.second / self.count - mean**2, 0.0))
