"""What networks cost, against closed forms and against counts made by others."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.cost.costs import Cost, cost_of
from tests.core.networks import conv, known_network, mlp, network, random_structure, residual, slow_on_jax, two_moons

# At the default input: multiply-adds of convolutions and dense layers in millions, counted by hooks on each layer's
# kernel and output in an independent script; and parameters.
KNOWN_COSTS = {
    "ResNet50": (3858, 25_636_712),
    "ResNet101": (7570, 44_707_176),
    "ResNet50V2": (3482, 25_613_800),
    "MobileNet": (568.7, 4_253_864),
    "MobileNetV2": (300.8, 3_538_984),
    "VGG16": (15470, 138_357_544),
    "DenseNet121": (2834.2, 8_062_504),
    "Xception": (8357, 22_910_480),
    "EfficientNetB0": (385.8, 5_330_571),
    "EfficientNetV2B0": (718.1, 7_200_312),
    "NASNetMobile": (563.6, 5_326_716),
    "InceptionResNetV2": (13156, 55_873_736),
    "ConvNeXtTiny": (4456, 28_589_128),
}


@pytest.mark.parametrize("name", slow_on_jax(KNOWN_COSTS, quick=["MobileNetV2", "ResNet50"]))
def test_known_networks_cost_what_others_counted(name):
    model = known_network(name)
    graph = morph.ChannelGraph.from_model(model)
    million_multiply_adds, parameters = KNOWN_COSTS[name]
    assert graph.cost("flops") == pytest.approx(2e6 * million_multiply_adds, rel=1e-3)
    assert graph.cost("params") == parameters == model.count_params()


def test_dense_layers_in_closed_form():
    graph = morph.ChannelGraph.from_model(mlp((100, 50), inputs=32, outputs=2))
    assert graph.cost("flops") == 2 * (32 * 100 + 100 * 50 + 50 * 2)
    assert graph.cost("params") == 33 * 100 + 101 * 50 + 51 * 2


@pytest.mark.parametrize(
    ("layer", "multiply_adds"),
    [
        (layers.Conv2D(6, 3, padding="same", name="b"), 64 * 9 * 12 * 6),
        (layers.Conv2D(6, 3, strides=2, padding="same", name="b"), 16 * 9 * 12 * 6),
        (layers.Conv2D(6, 3, padding="valid", name="b"), 36 * 9 * 12 * 6),
        (layers.Conv2D(6, 3, padding="same", groups=3, name="b"), 64 * 9 * 4 * 6),
        (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="b"), 64 * 9 * 24),
        (layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2, name="b"), 64 * (9 * 24 + 24 * 6)),
        (layers.Conv2DTranspose(6, 3, strides=2, padding="same", name="b"), 64 * 9 * 12 * 6),
        (layers.Dense(6, name="b"), 64 * 12 * 6),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else None,
)
def test_layers_in_closed_form(layer, multiply_adds):
    model = network(layer)
    stem, head = 64 * 27 * 12, model.get_layer("head").input.shape[-1] * 5
    assert morph.ChannelGraph.from_model(model).cost("flops") == 2 * (stem + multiply_adds + head)
    assert morph.ChannelGraph.from_model(model).cost("params") == model.count_params()


def test_three_dimensional_and_one_dimensional_convolutions():
    for kind, rank in ((layers.Conv1D, 1), (layers.Conv3D, 3)):
        inputs = keras.Input((*[6] * rank, 2))
        model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(kind(4, 3, padding="same")(inputs))))
        graph = morph.ChannelGraph.from_model(model)
        positions = 6**rank
        assert graph.cost("flops") == 2 * (positions * 3**rank * 2 * 4 + positions * 4 * 3)
        assert graph.cost("params") == model.count_params()


def test_attention_in_closed_form():
    queries, keys = keras.Input((7, 12)), keras.Input((5, 10))
    attention = layers.MultiHeadAttention(num_heads=3, key_dim=4, value_dim=6, output_shape=8)
    model = keras.Model([queries, keys], attention(queries, keys))
    projections = 7 * 12 * 3 * 4 + 5 * 10 * 3 * 4 + 5 * 10 * 3 * 6 + 7 * 3 * 6 * 8
    products = 3 * 7 * 5 * (4 + 6)
    graph = morph.ChannelGraph.from_model(model)
    assert graph.cost("flops") == 2 * (projections + products)
    assert graph.cost("params") == model.count_params()


def test_grouped_attention_in_closed_form():
    tokens = keras.Input((7, 12))
    attention = layers.GroupQueryAttention(head_dim=5, num_query_heads=4, num_key_value_heads=2)
    model = keras.Model(tokens, attention(tokens, tokens))
    projections = 7 * 12 * 4 * 5 + 2 * (7 * 12 * 2 * 5) + 7 * 4 * 5 * 12
    products = 4 * 7 * 7 * (5 + 5)
    graph = morph.ChannelGraph.from_model(model)
    assert graph.cost("flops") == 2 * (projections + products)
    assert graph.cost("params") == model.count_params()


def test_the_cost_of_a_structure_is_that_of_the_rebuilt_network():
    model = network(lambda x: layers.Add()([x, conv(12, "b")(conv(9, "c")(x))]))
    graph = morph.ChannelGraph.from_model(model)
    structure = random_structure(graph, 0.4)
    student = morph.rebuild(model, structure)
    assert graph.cost("params", structure) == student.count_params()
    assert graph.cost("flops", structure) == morph.ChannelGraph.from_model(student).cost("flops")
    assert structure.costs["params"] == {"seed": model.count_params(), "structure": student.count_params()}


@pytest.mark.parametrize("name", ["flops", "params"])
def test_the_penalty_equals_the_papers_bilinear_regularizer(name):
    """Gordon et al., equation 6: sum over layers of C (alive_in x sum |gamma_out| + alive_out x sum |gamma_in|).

    Checked on a chain of dense layers without bias, where C is 2 for FLOPs and 1 for parameters.
    """
    inputs = keras.Input((5,))
    hidden = layers.Dense(7, use_bias=False, name="a")(inputs)
    hidden = layers.Dense(11, use_bias=False, name="b")(hidden)
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(3, use_bias=False)(hidden)))
    rng = np.random.default_rng(0)
    gamma = {"a": rng.random(7), "b": rng.random(11)}
    alive = {"a": 4, "b": 6}
    scale = 2 if name == "flops" else 1
    paper = scale * (
        5 * gamma["a"].sum() + (alive["a"] * gamma["b"].sum() + alive["b"] * gamma["a"].sum()) + 3 * gamma["b"].sum()
    )
    widths = np.array([alive.get(group.name, group.size) for group in graph.groups])
    marginal = graph.marginal_costs(cost_of(name), widths)
    ours = sum(marginal[index] * gamma[group.name].sum() for index, group in enumerate(graph.groups) if group.prunable)
    assert ours == pytest.approx(paper, rel=1e-12)


def test_marginal_costs_of_a_users_cost_are_taken_one_by_one():
    graph = morph.ChannelGraph.from_model(mlp((10, 20)))

    def outputs(calls):
        return float(sum(call.axes["out"] ** 2 for call in calls))

    widths = graph.seed_widths.astype(float)
    assert graph.marginal_costs(cost_of(outputs), widths) == pytest.approx(2 * widths)


def test_a_removed_branch_costs_nothing():
    model = residual(8, blocks=2)
    graph = morph.ChannelGraph.from_model(model)
    structure = morph.describe(graph, {"b1_in": 0})
    spent = {layer["name"]: layer["costs"]["params"][1] for layer in structure.layers}
    assert spent["b1_in"] == spent["b1_out"] == 0
    assert graph.cost("params", structure) == morph.rebuild(model, structure).count_params()


def test_an_unknown_cost_is_refused_with_the_known_ones():
    with pytest.raises(
        morph.MorphError, match=r"Unknown cost 'flop'. Did you mean 'flops'\? Expected one of 'flops', 'params'"
    ):
        morph.ChannelGraph.from_model(mlp()).cost("flop")


def test_flops_of_an_unknown_image_size_are_refused_but_params_are_known():
    model = network(lambda x: x, shape=(None, None, 3))
    graph = morph.ChannelGraph.from_model(model)
    assert graph.cost("params") == model.count_params()
    for cost in ("flops", "latency:v100"):
        with pytest.raises(morph.MorphError, match=r"'a' .* unknown size .*cost='params'"):
            graph.cost(cost)
    for cost in ("activation_memory", "activation_total"):
        with pytest.raises(morph.MorphError, match=r"'a' .* with a size unknown, .*cost='params'"):
            graph.cost(cost)
    assert set(random_structure(graph, 0.5).costs) == {"params"}


def test_total_cost_of_half_channels_lies_between():
    graph = morph.ChannelGraph.from_model(mlp((10, 20)))
    low, high = (float(graph.costs([cost_of("flops")], graph.seed_widths + step)[0, 0]) for step in (0, 1))
    assert low < float(graph.costs([cost_of("flops")], graph.seed_widths + 0.5)[0, 0]) < high


# --- activations ------------------------------------------------------------------------------------------------------


def residual_toy() -> keras.Model:
    """Elements of every tensor above its name:

     64      256      384    256     256    4      10
    image - stem -+- in -- out -+- add - pool - head
                  +-------------+
    """
    image = keras.Input((8, 8, 1))
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    inner = layers.Conv2D(6, 3, padding="same", name="in")(stem)
    outer = layers.Conv2D(4, 3, padding="same", name="out")(inner)
    added = layers.Add(name="add")([stem, outer])
    return keras.Model(image, layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(added)))


def test_peak_and_total_of_activations_by_hand():
    graph = morph.ChannelGraph.from_model(residual_toy())
    assert graph.cost("activation_memory") == 4 * (256 + 384 + 256)  # while "out" runs, "stem" waits for "add"
    assert graph.cost("activation_total") == 4 * (64 + 256 + 384 + 256 + 256 + 4 + 10)


def test_the_peak_moves_when_widths_do():
    graph = morph.ChannelGraph.from_model(residual_toy())
    assert graph.cost("activation_memory", morph.describe(graph, {"in": 3})) == 4 * (256 + 256 + 256)  # now at "add"
    without = morph.describe(graph, {"in": 0})
    assert graph.cost("activation_memory", without) == 4 * (64 + 256)  # "add" hands "stem" on and makes nothing
    assert graph.cost("activation_total", without) == 4 * (64 + 256 + 4 + 10)
    assert without.costs["activation_memory"] == {"seed": 4 * 896, "structure": 4 * 320}


def test_marginal_activation_memory_is_what_a_channel_adds_to_the_peak():
    graph = morph.ChannelGraph.from_model(residual_toy())
    names = [group.name for group in graph.groups]
    marginal = dict(zip(names, graph.marginal_costs(cost_of("activation_memory"), graph.seed_widths), strict=True))
    assert marginal == {"stem": 4 * 2 * 64, "in": 4 * 64, "head": 0}


@pytest.mark.parametrize("name", ["activation_memory", "activation_total"])
def test_many_networks_at_once_cost_what_they_cost_one_by_one(name):
    graph = morph.ChannelGraph.from_model(residual(8, blocks=3))
    left = graph.survivors(np.array([group.name != "b2_in" for group in graph.groups]))
    at_once = morph.COSTS[name]
    one_by_one = Cost(name, at_once.unit, of_network=at_once.of_network)
    widths = graph.seed_widths * 0.7
    assert graph.marginal_costs(at_once, widths, left) == pytest.approx(graph.marginal_costs(one_by_one, widths, left))


def test_what_only_passes_its_input_on_takes_no_memory_and_no_time():
    plain = network(lambda x: layers.ReLU()(x))
    passing = network(lambda x: layers.Reshape((4, 16, 12))(layers.Dropout(0.5)(layers.ReLU()(x))))
    for cost in ("activation_memory", "activation_total", "latency:v100"):
        assert morph.ChannelGraph.from_model(passing).cost(cost) == morph.ChannelGraph.from_model(plain).cost(cost)


def test_outputs_of_the_model_stay_in_memory_to_the_end():
    inputs = keras.Input((10,))
    early = layers.Dense(100, name="early")(inputs)
    late = layers.Dense(50, name="late")(layers.Dense(20)(early))
    one = morph.ChannelGraph.from_model(keras.Model(inputs, late))
    both = morph.ChannelGraph.from_model(keras.Model(inputs, [early, late]))
    assert one.cost("activation_memory") == 4 * (100 + 20)
    assert both.cost("activation_memory") == 4 * (100 + 20 + 50)


@pytest.mark.parametrize("cost", ["activation_memory", "activation_total", "latency:v100", "latency:tpu-v4"])
def test_every_cost_of_a_structure_is_that_of_the_rebuilt_network(cost):
    def towers(x):
        return layers.Concatenate()([conv(6, "one")(x), conv(8, "two")(conv(4, "low")(x)), layers.ReLU()(x)])

    def parts(x):
        one, two = keras.ops.split(conv(8, "pair")(x), 2, axis=-1)
        return layers.Add()([conv(6, "low")(one), conv(6, "high")(two)])

    models = ((residual(8, blocks=3), "b2_in"), (network(towers), "low"), (network(parts), "pair"))
    for model, gone in models:
        graph = morph.ChannelGraph.from_model(model)
        for structure in (random_structure(graph, 0.5), morph.describe(graph, {gone: 0})):
            rebuilt = morph.ChannelGraph.from_model(morph.rebuild(model, structure))
            assert graph.cost(cost, structure) == pytest.approx(rebuilt.cost(cost), rel=1e-12)


# --- latency ----------------------------------------------------------------------------------------------------------


def slow_device(**changes) -> morph.Device:
    """A device on which the dense layer below computes exactly as long as it moves: 10 us; and 3 us besides."""
    facts = {"gflops": 1.0, "gigabytes_per_second": 2.06, "overhead_us": 3.0, **changes}
    return morph.Device(name="slow", precision="float32", source="made up", **facts)


def dense_latency(device: morph.Device) -> float:
    inputs = keras.Input((100,))
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(50, use_bias=False)(inputs)))
    assert graph.cost("flops") == 10_000  # and 4 x (100 + 50 + 100 x 50) = 20,600 bytes
    return graph.cost(morph.latency(device))


def test_latency_at_the_corner_of_the_roofline():
    corner = dense_latency(slow_device())
    assert corner == pytest.approx(0.013)
    assert dense_latency(slow_device(gflops=2.0)) == pytest.approx(corner)
    assert dense_latency(slow_device(gigabytes_per_second=4.12)) == pytest.approx(corner)
    assert dense_latency(slow_device(gflops=2.0, gigabytes_per_second=4.12)) == pytest.approx(0.008)
    assert dense_latency(slow_device(gflops=0.5)) == pytest.approx(0.023)
    assert dense_latency(slow_device(gigabytes_per_second=1.03)) == pytest.approx(0.023)
    assert dense_latency(slow_device(overhead_us=0)) == pytest.approx(0.010)


def test_latency_of_a_convolution_in_closed_form():
    model = network(layers.Conv2D(6, 3, padding="same", name="b"))
    graph = morph.ChannelGraph.from_model(model)
    device = morph.DEVICES["v100"]
    assert (device.gflops, device.gigabytes_per_second) == (15_700, 900)
    flops = 2 * 64 * 9 * 12 * 6
    moved = 4 * (64 * 12 + 64 * 6 + 9 * 12 * 6 + 6)
    assert graph.cost_by_layer("latency:V100")["b"] == pytest.approx(
        max(flops / 15_700e6, moved / 900e6) + device.overhead_us / 1e3
    )
    assert graph.cost("latency:v100") == pytest.approx(sum(graph.cost_by_layer("latency:v100").values()))


def test_half_the_bytes_in_half_precision():
    half = morph.Device("half", 1e9, "float16", 1.0, 0.0, "made up")
    full = morph.Device("full", 1e9, "float32", 1.0, 0.0, "made up")
    assert dense_latency(half) == pytest.approx(dense_latency(full) / 2)


def test_an_embedding_moves_the_rows_it_looks_up():
    tokens = keras.Input((7,), dtype="int32")
    model = keras.Model(tokens, layers.Embedding(1000, 16)(tokens))
    device = morph.Device("slow", 1.0, "float32", 1.0, 0.0, "made up")
    cost = morph.ChannelGraph.from_model(model).cost(morph.latency(device))
    assert cost == pytest.approx(4 * (7 + 7 * 16 + 7 * 16) / 1e6)


def test_layers_hold_latency_but_not_the_peak_of_memory():
    graph = morph.ChannelGraph.from_model(residual_toy())
    structure = morph.describe(graph, {"in": 0}, costs=["latency:v100", "activation_memory"])
    costs = {layer["name"]: layer["costs"] for layer in structure.layers}
    assert set(costs["stem"]) == {"flops", "params", "latency:v100"}
    assert costs["in"]["latency:v100"][0] > 0 == costs["in"]["latency:v100"][1]
    assert set(structure.costs) == {"flops", "params", "activation_memory", "activation_total", "latency:v100"}
    assert structure.costs["latency:v100"] == {
        "seed": graph.cost("latency:v100"),
        "structure": graph.cost("latency:v100", structure),
    }
    assert graph.cost_by_layer("activation_memory") == {}


def test_costs_that_only_the_first_of_two_cycles_counted_are_left_out_of_the_chain():
    model = residual(8)
    graph = morph.ChannelGraph.from_model(model)
    first = morph.describe(graph, {"b1_in": 4}, costs=["latency:v100"])
    second = morph.describe(morph.ChannelGraph.from_model(morph.rebuild(model, first)), {"b1_in": 2})
    both = morph.chain(first, second)
    assert set(both.costs) == set(second.costs)
    assert {name for layer in both.layers for name in layer["costs"]} == {"flops", "params"}


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ("latency", r"needs a device, such as 'latency:v100'. Known are k80, "),
        ("latency:", r"needs a device"),
        ("latency:v10", r"Unknown device 'v10'. Did you mean 'v100'\? Expected one of k80, .* calibration file"),
        ("latency:none.json", r"Calibration file none.json: it cannot be read"),
    ],
)
def test_an_unknown_device_is_refused_with_the_known_ones(cost, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.ChannelGraph.from_model(mlp()).cost(cost)


@pytest.mark.parametrize("device", morph.DEVICES.values(), ids=lambda device: device.name)
def test_the_rows_of_the_device_table_are_whole(device):
    assert device.name == device.name.lower()
    assert device.gflops > device.gigabytes_per_second > 0 <= device.overhead_us
    assert device.bytes_per_element == {"float32": 4, "tfloat32": 4, "bfloat16": 2, "float16": 2}[device.precision]
    assert device.source


# --- calibration files ------------------------------------------------------------------------------------------------

CALIBRATION = {
    "schema_version": 1,
    "name": "phone",
    "precision": "float32",
    "gflops": 12.5,
    "gigabytes_per_second": 9.1,
    "overhead_us": 21.0,
    "source": "measured",
}


def test_a_calibration_file_is_a_device(tmp_path):
    path = tmp_path / "phone.json"
    path.write_text(json.dumps(CALIBRATION))
    cost = cost_of(f"latency:{path}")
    assert (cost.name, cost.unit) == ("latency:phone", "ms per example on phone")
    assert dense_latency(morph.Device("phone", 12.5, "float32", 9.1, 21.0, "measured")) == pytest.approx(
        20_600 / 9.1e6 + 0.021
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gflops": 0}, "gflops is 0, not a positive number"),
        ({"gflops": float("inf")}, r"it cannot be read \(Infinity is not a number\)"),
        ({"gigabytes_per_second": "9"}, "gigabytes_per_second is '9', not a positive number"),
        ({"overhead_us": -1}, "overhead_us is -1, not a positive number"),
        ({"overhead_us": True}, "overhead_us is True, not a positive number"),
        ({"precision": "int8"}, "precision is 'int8', not one of float32, "),
        ({"precision": ["float32"]}, "precision is "),
        ({"name": " "}, "name and source must be text"),
        ({"schema_version": 4}, "schema_version is 4"),
        ({"watts": 3}, "its fields are wrong .*watts"),
    ],
)
def test_a_calibration_file_with_a_mistake_is_refused(tmp_path, changes, message):
    path = tmp_path / "phone.json"
    path.write_text(json.dumps({**CALIBRATION, **changes}))
    with pytest.raises(morph.MorphError, match=rf"Calibration file .*phone.json: {message}.* Expected JSON with"):
        cost_of(f"latency:{path}")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '"gflops"', "{}"])
def test_a_file_that_is_no_calibration_is_refused(tmp_path, text):
    path = tmp_path / "phone.json"
    path.write_text(text)
    with pytest.raises(morph.MorphError, match=r"Calibration file .*(cannot be read|fields are wrong)"):
        cost_of(f"latency:{path}")


# --- searching under them ---------------------------------------------------------------------------------------------


def channels_squared(calls):
    """A user's own cost: wide layers are expensive."""
    return float(sum(call.axes["out"] ** 2 for call in calls if "out" in call.axes))


@pytest.mark.parametrize(
    "cost",
    ["activation_memory", morph.latency(morph.Device("slow", 1.0, "float32", 1.0, 0.01, "made up")), channels_squared],
    ids=["activation_memory", "latency", "users_function"],
)
def test_a_search_meets_a_budget_of_any_cost(cost):
    x, y = two_moons(256)
    model = mlp((32, 24), inputs=8)
    search = morph.StructureSearch(model, cost=cost, target=0.6, gate="logistic_sigmoid")
    search.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search.fit(x, y, batch_size=32, epochs=8, verbose=0)
    structure = search.structure()
    name = cost_of(cost).name
    spent = structure.costs[name]["structure"] / structure.costs[name]["seed"]
    assert 0.5 < spent <= 0.6
    assert structure.goal == {"cost": name, "target": 0.6}
    graph = search.graph
    assert graph.cost(cost, structure) == structure.costs[name]["structure"]
    wider = morph.expand(structure, graph, cost, target=1.0)
    assert 0.9 < wider.costs[name]["structure"] / wider.costs[name]["seed"] <= 1.0
