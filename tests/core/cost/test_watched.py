"""The oracle itself, against closed forms."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from benchmarks.watched import watched_flops

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the oracle watches TensorFlow")


def flops_of(layer, *shapes):
    tensors = [np.ones((1, *shape), "float32") for shape in shapes]
    layer(*tensors)
    return sum(watched_flops(lambda: layer(*tensors)).values())


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Dense(5), (7,), 2 * 7 * 5),
        (layers.Dense(5), (3, 7), 2 * 3 * 7 * 5),
        (layers.Conv2D(5, 3, padding="same"), (8, 8, 4), 2 * 64 * 9 * 4 * 5),
        (layers.Conv2D(6, 3, padding="same", groups=2), (8, 8, 4), 2 * 64 * 9 * 2 * 6),
        (layers.Conv1D(5, 3, padding="same"), (8, 4), 2 * 8 * 3 * 4 * 5),
        (layers.Conv3D(5, 3, padding="same"), (4, 4, 4, 2), 2 * 64 * 27 * 2 * 5),
        (layers.Conv2DTranspose(5, 3, strides=2, padding="same"), (4, 4, 2), 2 * 16 * 9 * 2 * 5),
        (layers.DepthwiseConv2D(3, padding="same"), (8, 8, 4), 2 * 64 * 9 * 4),
        (layers.SeparableConv2D(5, 3, padding="same"), (8, 8, 4), 2 * 64 * 4 * (9 + 5)),
        (layers.EinsumDense("abc,cd->abd", (3, 5)), (3, 7), 2 * 3 * 7 * 5),
        (layers.LSTM(5), (6, 4), 2 * 6 * 4 * 5 * (4 + 5)),
        (layers.RNN([layers.LSTMCell(5), layers.GRUCell(3)]), (6, 4), 2 * 6 * (4 * 5 * (4 + 5) + 3 * 3 * (5 + 3))),
        (layers.ConvLSTM2D(5, 3, padding="same"), (6, 4, 4, 2), 2 * 6 * 16 * 9 * 4 * 5 * (2 + 5)),
        (layers.MultiHeadAttention(2, 4, use_bias=False), None, 2 * (4 * 6 * 8 * 8 + 2 * 2 * 6 * 6 * 4)),
        (layers.Attention(), None, 2 * 2 * 6 * 6 * 8),
    ],
    ids=lambda value: value.name if isinstance(value, keras.Layer) else None,
)
def test_watching_tensorflow_counts_what_the_closed_form_says(layer, shape, expected):
    if shape is None:
        tensor = np.ones((1, 6, 8), "float32")
        call = (
            (lambda: layer([tensor, tensor])) if isinstance(layer, layers.Attention) else lambda: layer(tensor, tensor)
        )
        call()
        assert sum(watched_flops(call).values()) == expected
    else:
        assert flops_of(layer, shape) == expected


def test_matrix_products_and_einsums_of_keras_ops_are_counted():
    one, other = np.ones((2, 3, 4), "float32"), np.ones((2, 4, 5), "float32")
    assert sum(watched_flops(lambda: ops.matmul(one, other)).values()) == 2 * 2 * 3 * 4 * 5
    assert sum(watched_flops(lambda: ops.einsum("bij,bjk->bik", one, other)).values()) == 2 * 2 * 3 * 4 * 5
    assert sum(watched_flops(lambda: ops.tensordot(one, other, [[0, 2], [0, 1]])).values()) == 2 * 3 * 5 * 8
