"""The law: the seed with closed gates and the rebuilt network agree."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import morph_core as morph
from tests.core.networks import conv, mlp, network, random_structure, randomize, residual, sizes


def squeeze(x):
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(4, 1, activation="relu", name="squeeze")(y)
    return layers.Multiply()([x, layers.Conv2D(12, 1, activation="sigmoid", name="excite")(y)])


# Where layers differ in what they do to channels: test_tricky_graphs.py; whole networks: test_applications.py.
BODIES = {
    "pooling and padding": lambda x: layers.MaxPooling2D()(layers.ZeroPadding2D()(layers.UpSampling2D()(x))),
    "activations": lambda x: layers.Activation("sigmoid")(layers.LeakyReLU()(conv(12, "b")(x))),
    "dropout": lambda x: layers.SpatialDropout2D(0.5)(layers.Dropout(0.5)(x)),
    "subtract, average, maximum": lambda x: layers.Maximum()(
        [layers.Average()([x, conv(12, "b")(x)]), layers.Subtract()([x, conv(12, "c")(x)])]
    ),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("share", [0.7, 0.3])
def test_masked_equals_rebuilt_for_small_graphs(body, share):
    model = network(BODIES[body])
    structure = random_structure(morph.ChannelGraph.from_model(model), share)
    assert structure.widths["a"] < 12
    assert morph.verify(model, structure) < 1e-5


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


def test_outputs_that_are_truth_values_are_compared_as_well():
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, [layers.Dense(2, name="head")(x), ops.greater(inputs[:, 0], 0.0)])
    structure = random_structure(morph.ChannelGraph.from_model(model), 0.5)
    assert morph.verify(model, structure) < 1e-6
