"""Calibration files: what is measured, what costs read off them, and what happens to a run that is stopped."""

import dataclasses
import json
import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.cost.calibration import Estimate, Shares, Table
from morph_core.cost.costs import elements_moved, flops
from morph_core.cost.devices import read_calibration
from morph_core.device import calibrate as calibrating
from morph_core.device import parts, timing
from morph_core.device.grid import grids_of
from tests.core.calibrations import calibration, forget_warnings, timed_by
from tests.core.networks import conv, mlp, network, random_structure, residual, two_moons

BACKEND = keras.backend.backend()
RUNTIME = {"tensorflow": "tf.function", "jax": "xla"}.get(BACKEND)
needs_runtime = pytest.mark.skipif(RUNTIME is None, reason="no runtime can be measured on this backend")
needs_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="a runtime of TensorFlow")


def branches():
    """Two branches of their own widths that are concatenated, and one that is added back."""

    def body(x):
        joined = layers.Concatenate()([conv(8, "b")(x), conv(16, "c")(x)])
        return layers.Add()([conv(12, "d")(joined), x])

    return network(body)


def attention():
    tokens = keras.Input((6, 16))
    attended = layers.MultiHeadAttention(4, 8, name="attend")(tokens, tokens)
    mixed = layers.Dense(24, activation="relu", name="mix")(layers.LayerNormalization()(attended))
    return keras.Model(tokens, layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(mixed)))


# Whole networks that are timed in every stretch.
PACERS = {"pacer 0", "pacer 1"}
NETWORKS = {"branches": branches, "residual": residual, "mlp": mlp, "attention": attention}


@pytest.fixture
def made_up_device(monkeypatch):
    """A device on which a call takes a time that is known: so much for each FLOP and byte, and a constant.

    Gives the list of what was timed.
    """
    timed = []

    def of_call(call) -> float:
        return float(3e-6 * flops(call) + 2e-6 * elements_moved(call, flops(call)) + 0.01) if call.makes else 0.0

    def compiled(run, one):
        timed.append(one.key)
        calls = run.graph.call_widths(one.widths.astype(float))
        milliseconds = of_call(calls[one.call]) if one.call is not None else 0.5 * sum(map(of_call, calls))
        return lambda: milliseconds * run._copies(one)

    monkeypatch.setattr(timing.Timing, "_compiled", compiled)
    timed_by(monkeypatch, lambda: 1.0)
    return timed


@needs_runtime
@pytest.mark.parametrize("name", NETWORKS)
def test_a_calibration_tells_what_any_widths_take(made_up_device, tmp_path, name):
    """Times that are linear in each width are read off exactly; whole networks take half of what their calls do."""
    model = NETWORKS[name]()
    graph = morph.ChannelGraph.from_model(model)
    calibration = morph.calibrate(model, tmp_path / "made.json", runtime=RUNTIME, points=3, networks=3)
    assert calibration.repeatability == {"entries": 0.0, "networks": 0.0}
    assert calibration.shares.kernels == pytest.approx(0.5) == calibration.shares.rest
    for seed in range(5):
        structure = random_structure(graph, 0.3 + 0.15 * seed, seed)
        widths = structure.widths_in(graph).astype(float)
        left = graph.survivors(widths > 0)
        calls = [call for call in graph.call_widths(widths, left) if call.makes]
        expected = sum(3e-6 * flops(call) + 2e-6 * elements_moved(call, flops(call)) + 0.01 for call in calls)
        assert graph.cost(f"latency:{tmp_path / 'made.json'}", structure) == pytest.approx(0.5 * expected, rel=0.02)
    by_layer = graph.cost_by_layer(morph.latency(calibration))
    assert sum(by_layer.values()) == pytest.approx(graph.cost(morph.latency(calibration)))


@needs_runtime
def test_costs_of_several_networks_at_once_are_those_of_each(made_up_device, tmp_path):
    model = branches()
    graph = morph.ChannelGraph.from_model(model)
    cost = morph.latency(morph.calibrate(model, tmp_path / "made.json", runtime=RUNTIME, points=3, networks=2))
    several = np.array([graph.seed_widths, *(parts.random_widths(graph, seed) for seed in range(3))], dtype=float)
    one_by_one = [graph.costs([cost], widths)[0, 0] for widths in several]
    assert graph.costs([cost], several)[0] == pytest.approx(one_by_one)
    assert (graph.marginal_costs(cost, graph.seed_widths)[graph.prunable] > 0).all()


@needs_runtime
def test_what_is_compared_is_timed_in_turn(made_up_device, tmp_path, monkeypatch):
    """All that tables hold in one stretch, and what is measured again in another."""
    stretches = timed_by(monkeypatch, lambda: 1.0)
    morph.calibrate(branches(), tmp_path / "made.json", runtime=RUNTIME, points=3, networks=2)
    again = [key for key in made_up_device if key.endswith("again")]
    assert stretches == [len(made_up_device) - len(again), len(again) + len(PACERS)]


@needs_runtime
@pytest.mark.parametrize("limit", ["_HELD_BYTES", "_STRETCH_SECONDS"])
def test_a_machine_that_is_slower_at_times_tells_the_same(made_up_device, tmp_path, monkeypatch, limit):
    """Networks that are timed in every stretch tell how slow it is; what is measured again is left as it is."""
    steady = morph.calibrate(branches(), tmp_path / "made.json", runtime=RUNTIME, points=3, networks=2)
    monkeypatch.setattr(timing, limit, 0 if limit == "_STRETCH_SECONDS" else 20_000)
    stretches = timed_by(monkeypatch, lambda: (0.5, 1.0, 2.0)[len(stretches) % 3])
    with pytest.warns(UserWarning, match="repeats itself only within"):
        found = morph.calibrate(branches(), tmp_path / "made.json", runtime=RUNTIME, points=3, networks=2)
    assert len(stretches) > 3
    if limit == "_STRETCH_SECONDS":
        assert set(stretches) == {1 + len(PACERS)}
    assert found.repeatability["entries"] > 0.1
    for one, other in zip(found.tables, steady.tables, strict=True):
        assert one.milliseconds == pytest.approx(other.milliseconds)
    assert found.shares.kernels == pytest.approx(steady.shares.kernels)


@needs_runtime
def test_a_run_that_was_stopped_goes_on_from_what_it_has_timed(made_up_device, tmp_path, monkeypatch):
    model, path = branches(), tmp_path / "made.json"
    monkeypatch.setattr(timing, "_STRETCH_SECONDS", 0.0)

    def stop(progress):
        if progress.done >= 30 and "in turn" not in progress.what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        morph.calibrate(model, path, runtime=RUNTIME, points=3, networks=2, notice=stop)
    first, made_up_device[:] = set(made_up_device) - PACERS, []
    assert len(first) >= 30
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made.json.part"]
    seen = []
    morph.calibrate(model, path, runtime=RUNTIME, points=3, networks=2, notice=seen.append)
    then = set(made_up_device) - PACERS
    assert not first & then
    assert seen[0].done == len(first) and seen[-1].done == seen[-1].total == len(first) + len(then)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made.json"]


@needs_runtime
def test_what_another_calibration_has_left_is_not_gone_on_with(made_up_device, tmp_path):
    path = tmp_path / "made.json"

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        morph.calibrate(mlp(), path, runtime=RUNTIME, batch_size=2, notice=stop)
    message = r"made.json.part was left by another calibration: its batch_size is '2', that of this one '1'. Remove it"
    with pytest.raises(morph.MorphError, match=message):
        morph.calibrate(mlp(), path, runtime=RUNTIME)
    (tmp_path / "made.json.part").write_text("{")
    with pytest.raises(morph.MorphError, match=r"made.json.part is no record of a calibration .* Remove it"):
        morph.calibrate(mlp(), path, runtime=RUNTIME)


@needs_runtime
def test_an_unsteady_machine_is_told_of(made_up_device, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    timed_by(monkeypatch, lambda: rng.uniform(0.5, 1.5))
    with pytest.warns(UserWarning, match=r"'made' repeats itself only within \d+% .* with more repeats"):
        calibration = morph.calibrate(mlp(), tmp_path / "made.json", runtime=RUNTIME, points=3)
    assert calibration.repeatability["entries"] > 0.1


@needs_runtime
def test_a_search_keeps_to_a_measured_budget(made_up_device, tmp_path):
    x, y = two_moons(256)
    model = mlp((32, 24), inputs=8)
    morph.calibrate(model, tmp_path / "made.json", runtime=RUNTIME, points=3, networks=2)
    # A constant for each call is most of the time of so small a network: 0.9 is half of what widths can change.
    cost = f"latency:{tmp_path / 'made.json'}"
    search = morph.StructureSearch(model, cost=cost, target=0.95, gate="fisher")
    search.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    search.fit(x, y, batch_size=32, epochs=4, verbose=0)
    costs = search.structure().costs["latency:made"]
    assert costs["structure"] <= 0.95 * costs["seed"]
    assert search.graph.cost(cost, search.structure()) == costs["structure"]


def test_tied_widths_are_one_dimension_of_a_grid():
    graph = morph.ChannelGraph.from_model(residual(16, blocks=1))
    grids = {graph.trace.calls[grid.call].name: grid for grid in grids_of(graph, 3)}
    assert grids["b1_in"].grid == ((2.0, 9.0, 16.0), (2.0, 9.0, 16.0))  # from the stem's group to its own
    assert {grids["b1_in"].sizes} <= {("in", "out"), ("out", "in")}
    assert grids["stem"].sizes == ("out",)
    for grid in grids.values():
        assert len(grid.widths) == np.prod([len(points) for points in grid.grid])


@pytest.mark.parametrize("name", NETWORKS)
def test_every_measured_call_can_be_made_by_itself(name):
    graph = morph.ChannelGraph.from_model(NETWORKS[name]())
    for grid in grids_of(graph, 2):
        made = parts.one_call(graph, grid.call, grid.widths[0], "float32", 2)
        outputs = keras.tree.flatten(made(keras.tree.pack_sequence_as(made.input, parts.random_inputs(made))))
        call = graph.call_widths(grid.widths[0].astype(float))[grid.call]
        assert 2 * call.elements(call.makes) == sum(np.prod(output.shape) for output in outputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_network_of_any_widths_is_that_which_a_structure_gives(name):
    model = NETWORKS[name]()
    graph = morph.ChannelGraph.from_model(model)
    widths = parts.random_widths(graph, 3)
    named = {group.name: int(width) for group, width in zip(graph.groups, widths, strict=True) if group.prunable}
    rebuilt = morph.rebuild(model, morph.describe(graph, named))
    assert parts.whole(graph, widths, "float32", 2).count_params() == rebuilt.count_params()


def test_half_a_dtype_reaches_every_layer():
    graph = morph.ChannelGraph.from_model(branches())
    made = parts.whole(graph, graph.seed_widths, "bfloat16", 1)
    assert {layer.compute_dtype for layer in made.layers if layer.weights} == {"bfloat16"}
    assert {tensor.dtype for tensor in made.inputs} == {"bfloat16"}


# --- measuring for real -----------------------------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize(
    ("runtime", "dtype"),
    [
        ("tf.function", "float32"),
        pytest.param("tf.function", "bfloat16", marks=pytest.mark.thorough),
        pytest.param("xla", "float32", marks=pytest.mark.thorough),
        pytest.param("litert", "float32", marks=pytest.mark.thorough),
    ],
)
def test_this_machine_is_measured(tmp_path, runtime, dtype):
    model = mlp((256, 256), inputs=256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a busy machine
        calibration = morph.calibrate(
            model, tmp_path / "here.json", runtime=runtime, dtype=dtype, batch_size=32, points=2, networks=2, repeats=10
        )
    on = calibration.measured_on
    assert (on["runtime"], on["dtype"], on["batch_size"]) == (runtime, dtype, 32)
    assert on["versions"]["keras"] == keras.__version__
    graph = morph.ChannelGraph.from_model(model)
    cost = morph.cost_of(f"latency:{tmp_path / 'here.json'}")
    assert cost.name == "latency:here"
    assert 0 < graph.cost(cost) < 100
    assert graph.cost_by_layer(cost)["d2"] > 0


# --- tables -----------------------------------------------------------------------------------------------------------

TABLE = Table(
    "kind", True, ("in", "out"), ((2.0, 4.0), (1.0, 3.0, 9.0)), {"read 0": (0.0, 4.0, 0.0)}, (1, 2, 5, 3, 6, 15)
)


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [((2, 1), 1), ((4, 9), 15), ((2, 3), 2), ((3, 3), 4), ((2, 6), 3.5), ((3, 6), 7), ((2, 15), 8), ((2, 0), 0.5)],
)
def test_a_table_is_read_off_between_its_points_and_beyond(given, milliseconds):
    ins, outs = given
    assert TABLE.at({"in": ins, "out": outs, "read 0": 4 * ins}) == pytest.approx(milliseconds)


def test_a_table_says_nothing_of_widths_that_it_ties_otherwise():
    found = TABLE.at({"in": np.array([2.0, 2.0]), "out": np.array([1.0, 1.0]), "read 0": np.array([8.0, 16.0])})
    assert found[0] == 1 and np.isnan(found[1])


# --- files ------------------------------------------------------------------------------------------------------------


def by_hand(machine=""):
    return calibration(
        "made",
        machine,
        batch_size=2,
        kernels=Estimate(1.0, 2.0, 0.5),
        rest=Estimate(0.0, 0.0, 0.25),
        shares=Shares(1.0, 2.0),
        tables=(TABLE,),
        waste={"1": 0.3, "2": 0.1, "4": 0.0, "8": 0.01, "16": 0.0},
    )


def test_a_file_is_read_as_it_was_written(tmp_path):
    (tmp_path / "made.json").write_text(by_hand().to_json())
    read = read_calibration(tmp_path / "made.json")
    assert dataclasses.asdict(read) == dataclasses.asdict(by_hand())


def test_calls_without_a_table_are_estimated():
    """A dense layer of 1000 x 1000 for a batch of 2: 4 MFLOPs, and the moved bytes, each counted for each example."""
    inputs = keras.Input((1000,))
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(1000, use_bias=False)(inputs)))
    expected = 1.0 * 0.004 + 2.0 * 2 * 4 * 1_002_000 / 1e9 + 0.5
    assert graph.cost(morph.latency(by_hand())) == pytest.approx(expected / 2)


def test_a_file_from_another_machine_is_told_of_once(tmp_path, monkeypatch):
    (tmp_path / "made.json").write_text(by_hand(machine="another, 64 cores").to_json())
    forget_warnings(monkeypatch)
    with pytest.warns(UserWarning, match=r"Calibration 'made' was measured on another, 64 cores, this is .* cores"):
        morph.cost_of(f"latency:{tmp_path / 'made.json'}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        morph.cost_of(f"latency:{tmp_path / 'made.json'}")
        morph.latency(by_hand())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["name"], " ", "name must be text"),
        (["measured_on", "batch_size"], 0, "measured_on.batch_size is 0"),
        (["measured_on", "runtime"], None, "measured_on.runtime is None"),
        (["shares", "rest"], -1, "shares.rest is -1, not a number from 0"),
        (["kernels"], {}, "kernels must have per_gflop, per_gigabyte, constant"),
        (["tables"], {}, "tables is not a list"),
        (["tables", 0, "grid"], [[2, 1], [1]], r"tables\[0\].grid has no rising numbers"),
        (["tables", 0, "milliseconds"], [1], r"tables\[0\].milliseconds has not one number for each point"),
        (["tables", 0, "milliseconds", 0], "1", r"tables\[0\].milliseconds holds something that is no time"),
        (["tables", 0, "tied"], {"out": [1]}, r"tables\[0\].tied is wrong"),
        (["waste"], {"1": 0.5}, "waste must have numbers for 1, 2, 4, 8, 16, or be empty"),
        (["watts"], 3, "its fields are wrong .*watts"),
    ],
)
def test_a_measured_file_with_a_mistake_is_refused(tmp_path, place, value, message):
    data = json.loads(by_hand().to_json())
    inner = data
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "made.json").write_text(json.dumps(data))
    with pytest.raises(morph.MorphError, match=rf"Calibration file .*made.json: {message}.* Expected JSON with"):
        morph.cost_of(f"latency:{tmp_path / 'made.json'}")


# --- mistakes ---------------------------------------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorrt"}, r"Unknown runtime 'tensorrt'. Expected one of tf.function, xla, litert"),
        (
            {"runtime": "litert", "dtype": "float16"},
            r"Runtime 'litert' cannot run in 'float16'. Expected one of float32",
        ),
        ({"dtype": "int8"}, r"Runtime 'tf.function' cannot run in 'int8'"),
        ({"points": 1}, r"points is 1; expected a whole number from 2"),
        ({"batch_size": True}, r"batch_size is True; expected a whole number from 1"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_measured(tmp_path, options, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.calibrate(mlp(), tmp_path / "made.json", **options)
    assert list(tmp_path.iterdir()) == []


@needs_runtime
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/made.json", r"cannot be written \(No such file or directory\)"),
        ("made.txt", "name ends in .json"),
        ("t4.json", "'t4' is the name of a device"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_of_first(tmp_path, made_up_device, name, message):
    with pytest.raises(morph.MorphError, match=message):
        morph.calibrate(mlp(), tmp_path / name, runtime=RUNTIME)
    assert made_up_device == []


@pytest.mark.skipif(BACKEND == "tensorflow", reason="of other backends")
def test_a_runtime_of_another_backend_is_refused(tmp_path):
    message = re.escape(
        "Runtime 'tf.function' needs Keras on tensorflow, which comes with pip install 'morph-tfx[tfx]'"
    )
    with pytest.raises(morph.MorphError, match=message):
        morph.calibrate(mlp(), tmp_path / "made.json")


@needs_tensorflow
def test_without_an_interpreter_the_extra_is_named(tmp_path, monkeypatch):
    from morph_core.device import runtimes

    def missing(name):
        if name.startswith("ai_edge_litert"):
            raise ModuleNotFoundError(name)
        return object()

    monkeypatch.setattr(runtimes.importlib, "import_module", missing)
    with pytest.raises(morph.MorphError, match=r"LiteRT is not installed: .* pip install 'morph-tfx\[litert\]'"):
        morph.calibrate(mlp(), tmp_path / "made.json", runtime="litert")


@needs_runtime
def test_an_unknown_size_is_refused(tmp_path):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))))
    with pytest.raises(morph.MorphError, match=r"Give keras.Input a shape without None"):
        morph.calibrate(model, tmp_path / "made.json", runtime=RUNTIME)
    assert list(tmp_path.iterdir()) == []


@needs_runtime
def test_a_layer_that_the_runtime_cannot_run_is_named(tmp_path, monkeypatch):
    def refuse(model, batches):
        raise ValueError("no such kernel\nand more")

    chosen = calibrating.find_runtime(RUNTIME, "float32")
    monkeypatch.setattr(
        calibrating, "find_runtime", lambda *_: dataclasses.replace(chosen, compiled=_only_empty(chosen, refuse))
    )
    with pytest.raises(
        morph.MorphError, match=rf"'{RUNTIME}' cannot run d1 \(Dense\) in float32: no such kernel. Choose"
    ):
        morph.calibrate(mlp(), tmp_path / "made.json", runtime=RUNTIME)
    assert list(tmp_path.iterdir()) == []


@needs_tensorflow
def test_an_operation_that_litert_lacks_is_named_with_its_layer(tmp_path):
    """By LiteRT's own converter; what was measured before that is of no use, and would be in the way."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(keras.ops.erfinv(layers.Dense(3, name="first")(inputs))))
    message = r"'litert' cannot run erfinv-1 \(Erfinv\) in float32: it has no operation Erfinv. Choose another runtime"
    with pytest.raises(morph.MorphError, match=message):
        morph.calibrate(model, tmp_path / "made.json", runtime="litert", points=2, networks=2, repeats=3)
    assert list(tmp_path.iterdir()) == []


def _only_empty(runtime, refuse):
    """Compiles the empty model, and nothing else."""

    def compiled(model, batches):
        return runtime.compiled(model, batches) if not model.weights else refuse(model, batches)

    return compiled
