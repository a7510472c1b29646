"""After the cut the network also learns to answer as a teacher does; every number is computed anew with NumPy here."""

import keras
import numpy as np
import pytest
from keras import layers

import morph_core as morph
from morph_core.arrays import as_numpy
from morph_core.search.distill import Distillation, Lesson, check_teacher, of_model
from tests.core.networks import two_moons
from tests.core.search.test_finish import BACKEND, small, trained

losses = keras.losses
X, Y = two_moons(96)
LOGITS = losses.SparseCategoricalCrossentropy(from_logits=True)


def net(ending=None, units=3, seed=0, hidden=6, name="net"):
    keras.utils.set_random_seed(seed)
    start = keras.Input((8,), name="x")
    x = layers.Dense(hidden, activation="tanh", name="hidden")(start)
    return keras.Model(start, layers.Dense(units, activation=ending, name="head")(x), name=name)


def compiled(model=None, distill=True, loss=LOGITS, optimizer="adam", graph=False, **options):
    keras.utils.set_random_seed(0)
    options = {"target": 0.5, "search_fraction": 0.5} | options
    search = morph.StructureSearch(small() if model is None else model, distill=distill, **options)
    search.compile(optimizer, loss, run_eagerly=BACKEND == "tensorflow" and not graph)
    return search


def softmax(z):
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def divergence(p, q):
    return np.sum(p * (np.log(p) - np.log(q)), axis=-1)


def classes(teacher, student, temperature):
    return temperature**2 * divergence(softmax(teacher / temperature), softmax(student / temperature))


def yes_or_no(teacher, student, temperature):
    pairs = [(sigmoid(sign * teacher / temperature), sigmoid(sign * student / temperature)) for sign in (1, -1)]
    return temperature**2 * np.mean(sum(p * np.log(p / q) for p, q in pairs), axis=-1)


def amounts(teacher, student, temperature):
    return np.mean((teacher - student) ** 2, axis=-1)


KINDS = {
    "classes as logits": (losses.SparseCategoricalCrossentropy(from_logits=True), None, classes),
    "classes by name": ("sparse_categorical_crossentropy", "softmax", classes),
    "classes, focal": (losses.CategoricalFocalCrossentropy(), "softmax", classes),
    "yes or no as logits": (losses.BinaryCrossentropy(from_logits=True), None, yes_or_no),
    "yes or no by name": ("binary_crossentropy", "sigmoid", yes_or_no),
    "numbers": ("mse", None, amounts),
    "numbers, robust": (losses.Huber(), None, amounts),
}


def logits_of(model):
    """The same network without what its head ends in."""
    head = model.get_layer("head")
    return lambda x: as_numpy(model.get_layer("hidden")(x)) @ as_numpy(head.kernel) + as_numpy(head.bias)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", [None, np.linspace(0, 2, 16).astype("float32")], ids=["", "weighted"])
def test_the_second_term_is_that_of_the_paper(kind, weights):
    loss, ending, expected = KINDS[kind]
    teacher, student = net(ending, seed=1), net(ending, seed=2, hidden=4)
    lesson = Lesson(Distillation(temperature=2.5), student, {"loss": loss})
    value = lesson.loss(student, of_model(teacher, student)(X[:16]), student(X[:16]), weights)
    each = expected(logits_of(teacher)(X[:16]), logits_of(student)(X[:16]), 2.5)
    assert float(value) == pytest.approx(np.mean(each if weights is None else each * weights), rel=2e-4)


def test_it_is_the_term_of_keras_where_keras_has_one():
    distillation = getattr(keras, "distillation", None) or pytest.skip("this Keras has no distillation losses")
    teacher, student = net(seed=1), net(seed=2)
    told, given = teacher(X), student(X)
    lesson = Lesson(Distillation(temperature=3.0), student, {"loss": LOGITS})
    # By name, which is the default, Keras 3.12 takes the function, and that of logits that were not made probabilities.
    softened = distillation.LogitsDistillation(temperature=3.0, loss=losses.KLDivergence())
    theirs = softened.compute_loss(told, given)
    assert float(lesson.loss(student, [told], given)) == pytest.approx(float(theirs), rel=1e-4)
    own = Distillation(loss=softened)
    assert float(Lesson(own, student, {"loss": "hinge"}).loss(student, [told], given)) == pytest.approx(float(theirs))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_weighs_labels_and_teacher_and_leaves_regularizers_alone(weighted):
    teacher, student = net(seed=1), net(seed=2)
    student.get_layer("head").kernel.regularizer = keras.regularizers.L2(0.1)
    student.compile(keras.optimizers.SGD(0.0), LOGITS, run_eagerly=BACKEND == "tensorflow")
    weights = np.linspace(0, 2, 96).astype("float32") if weighted else np.ones(96, "float32")
    lesson = Lesson(Distillation(weight=0.7, temperature=2.0), student, {"loss": LOGITS})
    with lesson.taught(student, of_model(teacher, student)):
        received = student.train_on_batch(X, Y, sample_weight=weights)
        judged = student.test_on_batch(X, Y)
    z = logits_of(student)(X)
    on_labels = np.mean(-np.log(softmax(z)[np.arange(96), Y]) * weights)
    from_teacher = np.mean(classes(logits_of(teacher)(X), z, 2.0) * weights)
    penalty = 0.1 * np.sum(as_numpy(student.get_layer("head").kernel) ** 2)
    assert float(received) == pytest.approx(0.3 * on_labels + 0.7 * from_teacher + penalty, rel=1e-4)
    student.reset_metrics()
    plain = student.test_on_batch(X, Y)
    assert float(judged) != pytest.approx(float(received), rel=1e-3)
    assert float(plain) == pytest.approx(float(student.train_on_batch(X, Y)), rel=1e-5)


def test_an_example_of_no_weight_teaches_nothing():
    teacher = net(seed=1)
    ends = []
    for tampered in (0.0, 5.0):
        student = net(seed=2)
        student.compile(keras.optimizers.SGD(0.1), LOGITS, run_eagerly=BACKEND == "tensorflow")
        lesson = Lesson(Distillation(), student, {"loss": LOGITS})
        x, weights = X.copy(), np.ones(96, "float32")
        x[48:] += tampered
        weights[48:] = 0
        with lesson.taught(student, of_model(teacher, student)):
            student.train_on_batch(x, Y, sample_weight=weights)
        ends.append(np.concatenate([as_numpy(weight).ravel() for weight in student.weights]))
    assert ends[0] == pytest.approx(ends[1], abs=1e-7)


def two_heads(seed, order=("class", "size"), units=3):
    keras.utils.set_random_seed(seed)
    start = keras.Input((8,), name="x")
    hidden = layers.Dense(12, activation="relu", name="hidden")(start)
    heads = {"class": layers.Dense(units, name="class"), "size": layers.Dense(1, name="size")}
    return keras.Model(start, [heads[name](hidden) for name in order])


@pytest.mark.parametrize("by", ["name", "place"])
def test_several_outputs_are_matched_by_name_and_weighed_as_their_losses(by):
    student, teacher = two_heads(0), two_heads(1, order=("size", "class"))
    given = {"class": LOGITS, "size": "mse"}
    weights = {"class": 2.0, "size": 0.5}
    compiled_with = {"loss": given, "loss_weights": weights}
    if by == "place":
        compiled_with = {name: list(value.values()) for name, value in compiled_with.items()}
    lesson = Lesson(Distillation(temperature=2.0), student, compiled_with)
    value = lesson.loss(student, of_model(teacher, student)(X), student(X))
    (size, logits), (mine, my_size) = map(as_numpy, teacher(X)), map(as_numpy, student(X))
    expected = 2.0 * classes(logits, mine, 2.0).mean() + 0.5 * amounts(size, my_size, 0).mean()
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_an_output_without_a_loss_is_not_taught():
    student, teacher = two_heads(0), two_heads(1)
    lesson = Lesson(Distillation(), student, {"loss": {"size": "mse"}})
    value = lesson.loss(student, of_model(teacher, student)(X), student(X))
    assert float(value) == pytest.approx(amounts(as_numpy(teacher(X)[1]), as_numpy(student(X)[1]), 0).mean(), rel=1e-5)


def test_inputs_are_matched_by_name():
    def build(seed, names):
        keras.utils.set_random_seed(seed)
        starts = {name: keras.Input((4,), name=name) for name in ("left", "right")}
        parts = [layers.Dense(3, name=f"of_{name}")(starts[name]) for name in ("left", "right")]
        return keras.Model([starts[name] for name in names], layers.Subtract(name="out")(parts))

    student, teacher = build(0, ("left", "right")), build(1, ("right", "left"))
    check_teacher(teacher, student)
    x = [X[:, :4], X[:, 4:]]
    (told,) = of_model(teacher, student)(x)
    assert as_numpy(told) == pytest.approx(as_numpy(teacher(x[::-1])), abs=1e-6)


# --- in a run in one piece --------------------------------------------------------------------------------------------


def test_the_rest_is_the_same_as_training_the_cut_network_with_the_seed_as_its_teacher():
    whole = compiled(distill={"temperature": 2.0, "weight": 0.6})
    history = trained(whole).history
    by_hand = compiled(distill=None, search_fraction=1.0)
    first = trained(by_hand, epochs=2).history
    student = by_hand.result()
    lesson = Lesson(Distillation(temperature=2.0, weight=0.6), by_hand.seed, {"loss": LOGITS})
    with lesson.taught(student, of_model(by_hand.seed, student)):
        rest = student.fit(X, Y, epochs=2, batch_size=32, verbose=0, shuffle=False).history
    assert history["loss"] == pytest.approx(first["loss"] + rest["loss"], rel=1e-5)
    for mine, theirs in zip(whole.result().weights, student.weights, strict=True):
        assert as_numpy(mine) == pytest.approx(as_numpy(theirs), abs=1e-5)


def test_a_teacher_of_ones_own_is_what_the_network_comes_to_answer_like():
    """The labels say nothing, and they do not count."""
    teacher = net(units=2, seed=3, hidden=16)
    before = [as_numpy(weight).copy() for weight in teacher.weights]
    nothing = np.zeros(96, "int32")
    apart = []
    for distill in (None, {"teacher": teacher, "weight": 1.0, "temperature": 1.0}):
        search = compiled(distill=distill, optimizer=keras.optimizers.Adam(0.03), target=0.6, graph=True)
        trained(search, X, nothing, epochs=24)
        told, given = (softmax(as_numpy(model(X))) for model in (teacher, search.result()))
        apart.append(np.abs(told - given).max(axis=-1).mean())
    assert apart[1] < 0.15 < 0.3 < apart[0]
    assert all((as_numpy(weight) == old).all() for weight, old in zip(teacher.weights, before, strict=True))


def test_the_result_is_an_ordinary_model_again():
    search = compiled()
    trained(search, validation_data=(X, Y))
    student = search.result()
    assert "compute_loss" not in vars(student)
    z = as_numpy(student(X, training=True))
    student.reset_metrics()
    loss = student.train_on_batch(X, Y)
    assert float(loss) == pytest.approx(np.mean(-np.log(softmax(z)[np.arange(96), Y])), rel=1e-4)
    assert search.structure().settings["distill"] == {
        "teacher": "the seed at the cut", "temperature": 3.0, "weight": 0.5,
    }  # fmt: skip


def test_a_run_that_fails_leaves_no_teacher_behind():
    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    search = compiled()
    with pytest.raises(KeyboardInterrupt):
        trained(search, callbacks=[Fail()])
    assert "compute_loss" not in vars(search.result())


class Killed(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.point = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.point:
            raise Killed


@pytest.mark.parametrize(
    ("point", "teacher"),
    [
        pytest.param((2, 0), "seed", id="in the first epoch after the cut"),
        pytest.param((3, 1), "own", id="in the second, with a teacher of its own"),
        pytest.param((3, 1), "seed", id="in the second", marks=pytest.mark.thorough),
        pytest.param((2, 0), "own", id="in the first, with a teacher of its own", marks=pytest.mark.thorough),
    ],
)
def test_a_run_that_was_killed_goes_on_with_the_same_teacher(tmp_path, point, teacher):
    def search():
        return compiled(distill=True if teacher == "seed" else net(units=2, seed=7))

    whole = search()
    trained(whole, epochs=4)
    with pytest.raises(Killed):
        trained(search(), epochs=4, checkpoint=tmp_path, callbacks=[KillAt(*point)])
    again = search()
    history = trained(again, epochs=4, checkpoint=tmp_path)
    assert history.epoch == [0, 1, 2, 3]
    for mine, theirs in zip(again.result().weights, whole.result().weights, strict=True):
        assert as_numpy(mine) == pytest.approx(as_numpy(theirs), abs=1e-6)


def test_a_run_is_not_continued_with_another_teacher(tmp_path):
    with pytest.raises(Killed):
        trained(compiled(distill=net(units=2, seed=7)), checkpoint=tmp_path, callbacks=[KillAt(3, 0)])
    with pytest.raises(morph.MorphError, match="belongs to another run: teacher is"):
        trained(compiled(distill=net(units=2, seed=8)), checkpoint=tmp_path)
    with pytest.raises(morph.MorphError, match=r"belongs to another run: .*distill is null here"):
        trained(compiled(distill=None), checkpoint=tmp_path)


def test_a_search_with_a_seed_as_teacher_is_saved_and_loaded(tmp_path):
    search = compiled(distill={"weight": 0.25})
    trained(search)
    search.save(tmp_path / "search.keras")
    loaded = keras.saving.load_model(tmp_path / "search.keras")
    assert loaded.structure().settings["distill"]["weight"] == 0.25
    other = compiled(distill=net(units=2))
    with pytest.raises(morph.MorphError, match="teacher or a distillation loss of your own cannot be saved as a whole"):
        other.save(tmp_path / "other.keras")


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_mixed_precision_and_several_steps_at_once(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        model = small()
        search = morph.StructureSearch(model, target=0.5, search_fraction=0.5, distill=True)
        together = {} if BACKEND == "torch" else {"steps_per_execution": 2}
        search.compile(keras.optimizers.Adam(0.01), LOGITS, **together)
        history = trained(search, class_weight={0: 1.0, 1: 2.0}).history
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(history["loss"]).all()
    assert search.result().get_layer("one").compute_dtype == name.removeprefix("mixed_")


# --- refused before training ------------------------------------------------------------------------------------------


def own_loss(y_true, y_pred):
    return keras.ops.mean(y_pred, axis=-1)


@pytest.mark.parametrize(
    ("distill", "message"),
    [
        ("seed", r"distill is 'seed'; expected True .* a trained keras.Model, or a dict"),
        ({"temprature": 2}, r"distill has an unknown setting 'temprature'. Known: 'teacher'"),
        ({"temperature": 0}, r"distill has the temperature 0; expected a number above 0"),
        ({"temperature": True}, r"distill has the temperature True; expected a number above 0"),
        ({"weight": 1.5}, r"distill has the weight 1.5; expected a number of the teacher, above 0 and at most 1"),
        ({"teacher": "best.keras"}, r"distill has the teacher 'best.keras'; expected a trained keras.Model"),
        ({"loss": "kl_divergence"}, r"distill has the loss 'kl_divergence'; expected a keras.distillation loss"),
    ],
)
def test_what_is_no_distillation_is_refused(distill, message):
    with pytest.raises(morph.MorphError, match=message):
        compiled(distill=distill)


def test_without_a_training_after_the_cut_there_is_nothing_to_teach():
    with pytest.raises(
        morph.MorphError, match=r"distill is about the training after the cut, .*search_fraction below 1"
    ):
        compiled(search_fraction=1.0)


def wide_input():
    start = keras.Input((9,))
    return keras.Model(start, layers.Dense(2)(start), name="wide")


def two_inputs():
    starts = [keras.Input((8,), name=name) for name in ("x", "y")]
    return keras.Model(starts, layers.Dense(2)(layers.Add()(starts)))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (lambda: net(units=5), r"Teacher 'net' does not fit .*output '.*' has shape \(None, 5\), the student's"),
        (lambda: net("softmax", units=2), r"output '.*' has the activation softmax, the student's linear"),
        (wide_input, r"Teacher 'wide' .* input '.*' has shape \(None, 9\), the student's \(None, 8\)"),
        (two_inputs, r"it has 2 inputs, the student 1"),
        (lambda: two_heads(0), r"it has 2 outputs, the student 1"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher, message):
    with pytest.raises(morph.MorphError, match=message):
        compiled(distill=teacher())


def test_a_teacher_without_an_output_of_that_name_is_refused():
    other = two_heads(1)
    other.get_layer("size").name = "length"
    teacher = keras.models.clone_model(other)
    with pytest.raises(morph.MorphError, match=r"it has no output 'size', only 'class', 'length'"):
        check_teacher(teacher, two_heads(0))


def test_the_seed_itself_is_no_teacher_of_ones_own():
    seed = small()
    with pytest.raises(morph.MorphError, match=r"variables in common with .*Give distill=True"):
        compiled(model=seed, distill=seed)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (own_loss, r"the loss of output '.*' is own_loss, which does not say .*Give distill=\{'loss': \.\.\.\}"),
        ("hinge", r"the loss of output '.*' is hinge, which does not say"),
        (None, r"no output of model '.*' has a loss"),
    ],
)
def test_a_loss_that_says_nothing_of_the_outputs_is_refused_before_training(loss, message):
    search = compiled(loss=loss)
    before = as_numpy(search.seed.get_layer("one").kernel).copy()
    with pytest.raises(morph.MorphError, match=message):
        trained(search)
    assert (as_numpy(search.seed.get_layer("one").kernel) == before).all()


def test_layers_are_no_teachers():
    distillation = getattr(keras, "distillation", None) or pytest.skip("this Keras has no distillation losses")
    loss = distillation.FeatureDistillation("mse", teacher_layer_name="one", student_layer_name="one")
    with pytest.raises(
        morph.MorphError, match=r"FeatureDistillation of the layers 'one' and 'one', but layers are cut"
    ):
        compiled(distill={"loss": loss})
