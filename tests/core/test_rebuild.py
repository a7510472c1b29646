"""The law: the seed with closed gates and the rebuilt network agree."""

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from tests.core.networks import conv, mlp, network, random_structure, randomize, residual, sizes

# name -> smallest sensible input
APPLICATIONS = {"ResNet50": 32, "MobileNetV2": 32, "InceptionV3": 75, "DenseNet121": 32}


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
def test_masked_equals_rebuilt_for_known_networks(name, share):
    size = APPLICATIONS[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    graph = morph.ChannelGraph.from_model(randomize(model))
    structure = random_structure(graph, share, seed=int(100 * share))
    assert structure.costs["params"]["structure"] < structure.costs["params"]["seed"]
    assert morph.verify(model, structure) < 1e-5


def shared(x):
    layer = layers.Conv2D(12, 3, padding="same", activation="relu", name="shared")
    return layer(layer(x))


def squeeze(x):
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(4, 1, activation="relu", name="squeeze")(y)
    return layers.Multiply()([x, layers.Conv2D(12, 1, activation="sigmoid", name="excite")(y)])


BODIES = {
    "residual": lambda x: layers.Add()([x, conv(12, "b")(conv(10, "c")(x))]),
    "chained concatenation": lambda x: layers.Concatenate()(
        [x, conv(6, "b")(layers.Concatenate()([x, conv(4, "c")(x)]))]
    ),
    "concatenation of a tensor with itself": lambda x: conv(6, "b")(layers.Concatenate()([x, x])),
    "concatenation along the height": lambda x: conv(6, "b")(layers.Concatenate(axis=1)([x, conv(12, "c")(x)])),
    "concatenation, then addition": lambda x: layers.Add()(
        [layers.Concatenate()([conv(4, "b")(x), conv(8, "c")(x)]), conv(12, "d")(x)]
    ),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, activation="relu")(x),
    "depthwise times two": lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x),
    "separable": lambda x: layers.SeparableConv2D(10, 3, depth_multiplier=2, activation="relu")(x),
    "transposed": lambda x: conv(6, "b")(layers.Conv2DTranspose(10, 3, strides=2, activation="relu")(x)),
    "grouped": lambda x: conv(6, "b")(layers.Conv2D(8, 3, groups=4, activation="relu")(x)),
    "flatten": lambda x: layers.Dense(16, activation="relu")(layers.Flatten()(x)),
    "squeeze and excite": squeeze,
    "spread over channels": lambda x: layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid")(x)]),
    "called twice": shared,
    "slopes": lambda x: conv(6, "b")(layers.PReLU(shared_axes=[1, 2])(x)),
    "pooling and padding": lambda x: layers.MaxPooling2D()(layers.ZeroPadding2D()(layers.UpSampling2D()(x))),
    "activations": lambda x: layers.Activation("sigmoid")(layers.LeakyReLU()(conv(12, "b")(x))),
    "dropout": lambda x: layers.SpatialDropout2D(0.5)(layers.Dropout(0.5)(x)),
    "subtract, average, maximum": lambda x: layers.Maximum()(
        [layers.Average()([x, conv(12, "b")(x)]), layers.Subtract()([x, conv(12, "c")(x)])]
    ),
    "one channel": lambda x: conv(6, "b")(conv(1, "c")(x)),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("share", [0.7, 0.3])
def test_masked_equals_rebuilt_for_small_graphs(body, share):
    model = network(BODIES[body])
    structure = random_structure(morph.ChannelGraph.from_model(model), share)
    assert structure.widths["a"] < 12
    assert morph.verify(model, structure) < 1e-5


def test_masked_equals_rebuilt_with_channels_first_weights():
    # CPU builds of TensorFlow do not convolve in this layout, so the weights are compared instead of the outputs.
    image = keras.Input((3, 8, 8))
    x = layers.Conv2D(12, 3, data_format="channels_first", name="a")(image)
    x = layers.BatchNormalization(axis=1, name="bn")(x)
    x = layers.Dense(5, name="head")(layers.GlobalAveragePooling2D(data_format="channels_first")(x))
    model = randomize(keras.Model(image, x))
    structure = random_structure(morph.ChannelGraph.from_model(model), 0.5)
    student = morph.rebuild(model, structure, weights="inherit")
    alive = structure.groups["a"]["alive"]
    for name, axis in (("a", -1), ("bn", -1), ("head", -2)):
        for old, new in zip(model.get_layer(name).weights, student.get_layer(name).weights, strict=True):
            expected = old.numpy() if name == "head" and len(old.shape) == 1 else np.take(old.numpy(), alive, axis)
            assert np.array_equal(new.numpy(), expected)


@pytest.mark.parametrize("group", ["b1_in", "b2_in"])
def test_a_residual_block_goes_with_its_inner_layer(group):
    #  stem --+-- b1_in -- b1_out --+
    #         |                     Add ---> ...
    #         +---------------------+
    model = randomize(residual(8, blocks=2))
    graph = morph.ChannelGraph.from_model(model)
    structure = morph.describe(graph, {group: 0})
    block = group[:2]
    assert (
        structure.removed["layers"]
        == [
            f"{block}_in",
            f"{block}_in_bn",
            f"re_lu-{2 if block == 'b1' else 4}",
            f"{block}_out",
            f"{block}_out_bn",
            f"{block}_add",
        ][:5]
    )
    assert structure.widths[f"{block}_in"] == structure.widths[f"{block}_out"] == 0
    assert morph.verify(model, structure) < 1e-6
    names = [layer.name for layer in morph.rebuild(model, structure).layers]
    assert not [name for name in names if name.startswith(f"{block}_")]


def test_a_tower_goes_and_the_others_stay():
    def body(x):
        tower = conv(5, "t2")(conv(4, "t1")(x))
        return conv(6, "after")(layers.Concatenate(name="join")([conv(3, "u")(x), tower, conv(2, "v")(x)]))

    model = network(body)
    graph = morph.ChannelGraph.from_model(model)
    structure = morph.describe(graph, {"t1": 0})
    assert structure.removed["branches"] == [["t1", "t1_bn", "re_lu-1", "t2", "t2_bn", "re_lu-2"]] or (
        {"t1", "t2"} <= set(structure.removed["layers"])
    )
    assert structure.groups["t2"]["width"] == 0
    assert morph.verify(model, structure) < 1e-6
    assert morph.rebuild(model, structure).get_layer("after").kernel.shape == (3, 3, 5, 6)


def test_a_squeeze_and_excite_branch_goes():
    model = network(squeeze)
    structure = morph.describe(morph.ChannelGraph.from_model(model), {"squeeze": 0})
    assert {"squeeze", "excite"} <= set(structure.removed["layers"])
    assert morph.verify(model, structure) < 1e-6


def test_removing_the_last_way_to_the_output_is_an_error_that_names_it():
    graph = morph.ChannelGraph.from_model(mlp())
    with pytest.raises(morph.MorphError, match="Without the channels of 'd1' nothing reaches the model's output"):
        morph.describe(graph, {"d1": 0})


def test_a_layer_that_needs_all_inputs_says_so():
    model = network(lambda x: layers.Maximum(name="larger")([x, conv(12, "b")(conv(4, "c")(x))]))
    with pytest.raises(morph.MorphError, match=r"'larger' \(Maximum\) cannot do without the input"):
        morph.describe(morph.ChannelGraph.from_model(model), {"c": 0})


def test_fresh_weights_are_fresh_but_statistics_of_the_data_stay():
    inputs = keras.Input((4,))
    normalize = layers.Normalization()
    normalize.adapt(np.random.default_rng(0).normal(3, 2, (100, 4)).astype("float32"))
    hidden = layers.Dense(8, name="a")(normalize(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(hidden))
    graph = morph.ChannelGraph.from_model(model)
    keras.utils.set_random_seed(1)
    student = morph.rebuild(model, morph.describe(graph, {}), weights="fresh")
    assert not np.allclose(student.get_layer("a").kernel, model.get_layer("a").kernel)
    x = np.ones((1, 4), "float32")
    rebuilt = next(layer for layer in student.layers if isinstance(layer, layers.Normalization))
    assert np.allclose(rebuilt(x), normalize(x))


def test_the_student_is_an_ordinary_model(tmp_path):
    model = residual()
    student = morph.rebuild(model, random_structure(morph.ChannelGraph.from_model(model), 0.5))
    student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.zeros((4, 8, 8, 1), "float32"), np.zeros(4, "int32")
    student.fit(x, y, verbose=0)
    student.save(tmp_path / "student.keras")
    assert np.allclose(
        keras.saving.load_model(tmp_path / "student.keras").predict(x, verbose=0), student.predict(x, verbose=0)
    )


def test_dict_inputs_and_outputs_keep_their_names():
    left, right = keras.Input((4,), name="left"), keras.Input((6,), name="right")
    hidden = layers.Concatenate()([layers.Dense(8, name="a")(left), layers.Dense(8, name="b")(right)])
    outputs = {"first": layers.Dense(2, name="first")(hidden), "second": layers.Dense(3, name="second")(hidden)}
    model = keras.Model({"left": left, "right": right}, outputs)
    structure = random_structure(morph.ChannelGraph.from_model(model), 0.5)
    assert morph.verify(model, structure) < 1e-6
    received = morph.rebuild(model, structure)({"left": np.ones((2, 4)), "right": np.ones((2, 6))})
    assert {name: tuple(value.shape) for name, value in received.items()} == {"first": (2, 2), "second": (2, 3)}


def test_a_rebuilt_network_keeps_the_names_of_its_groups():
    inputs = keras.Input((8,))
    hidden = layers.Dense(6)(layers.Dense(5)(layers.Dense(4)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    graph = morph.ChannelGraph.from_model(model)
    student = morph.rebuild(model, random_structure(graph, 0.5))
    assert (
        list(sizes(morph.ChannelGraph.from_model(student))) == list(sizes(graph)) == ["dense-1", "dense-2", "dense-3"]
    )


def test_compile_arguments_serve_another_model():
    model = mlp()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    arguments = morph.compile_arguments(model)
    assert arguments["loss"] is loss
    student = mlp((5, 5))
    student.compile(**arguments)
    student.fit(np.zeros((8, 32), "float32"), np.zeros(8, "int32"), verbose=0)
    again = morph.compile_arguments(student)
    assert again["optimizer"] is not student.optimizer
    assert float(again["optimizer"].learning_rate) == pytest.approx(0.02)


def test_compile_arguments_of_an_uncompiled_model_are_refused():
    with pytest.raises(morph.MorphError, match=r"is not compiled. Call model\.compile"):
        morph.compile_arguments(mlp())


def test_another_networks_structure_is_refused():
    structure = random_structure(morph.ChannelGraph.from_model(mlp()), 0.5)
    with pytest.raises(morph.MorphError, match="made for another network"):
        morph.rebuild(residual(), structure)


def test_an_expanded_structure_has_nothing_to_inherit():
    model = mlp()
    graph = morph.ChannelGraph.from_model(model)
    wider = morph.expand(random_structure(graph, 0.5), graph, multiplier=1.5)
    with pytest.raises(morph.MorphError, match=r"was expanded.*weights='fresh'"):
        morph.rebuild(model, wider, weights="inherit")
    assert morph.rebuild(model, wider).get_layer("d1").units == 75


def test_weights_is_fresh_or_inherit():
    model = mlp()
    with pytest.raises(morph.MorphError, match="expected 'fresh' or 'inherit'"):
        morph.rebuild(model, random_structure(morph.ChannelGraph.from_model(model), 0.5), weights="copy")
