"""Somebody's TFX pipeline, in which the README's lines put MorphTrainer where Trainer stood.

All other components are TFX's own, and so is the runner: its Evaluator blesses the model, its Pusher pushes it.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx import v1 as tfx

import morph_core as morph
from morph_tfx.pipelines.local import demo
from tests.packaging.pages import blocks, run, sides

pytestmark = [
    pytest.mark.thorough,
    # Of Keras: the module's model takes a tensor, and its input_fn gives a dict with that tensor.
    pytest.mark.filterwarnings("ignore:The structure of `inputs`"),
]

LEAST_ACCURACY = 0.9  # on digits; chance is 0.1
BATCH = 100


def pipeline(root: Path) -> tfx.dsl.Pipeline:
    """From TFRecords to a push; `trainer` is what the README makes it."""
    splits = [tfx.proto.Input.Split(name=name, pattern=f"{name}/*") for name in ("train", "eval")]
    examples = tfx.components.ImportExampleGen(
        input_base=str(root / "data"), input_config=tfx.proto.Input(splits=splits)
    )
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"])
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        module_file="my_model.py",
        disable_statistics=True,
    )
    (diff,) = blocks("README.md", "diff")
    trainer = run(sides(diff)[1], "README.md", {"tfx": tfx, "transform": transform})["trainer"]
    bound = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(lower_bound={"value": LEAST_ACCURACY}))
    metric = tfma.MetricConfig(class_name="SparseCategoricalAccuracy", threshold=bound)
    evaluator = tfx.components.Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        eval_config=tfma.EvalConfig(
            model_specs=[tfma.ModelSpec(signature_name="serving_default", label_key="label")],
            slicing_specs=[tfma.SlicingSpec()],
            metrics_specs=[tfma.MetricsSpec(metrics=[metric])],
        ),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(root / "serving"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="theirs",
        pipeline_root=str(root / "artifacts"),
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(root / "metadata.sqlite")
        ),
        components=[examples, statistics, schema, transform, trainer, evaluator, pusher],
        beam_pipeline_args=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Where the pipeline has run."""
    root = tmp_path_factory.mktemp("theirs")
    demo.prepare(root)
    (root / "module.py").rename(root / "my_model.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tfx.orchestration.LocalDagRunner().run(pipeline(root))
    return root


def test_tfxs_evaluator_blesses_the_model_and_tfxs_pusher_pushes_it(root):
    assert [path.name for path in (root / "artifacts").glob("Evaluator/blessing/*/*")] == ["BLESSED"]
    (serving,) = (root / "serving").iterdir()
    digits = demo.load_digits()
    assert demo.pushed_accuracy(str(serving), digits["holdout"]) > LEAST_ACCURACY
    # Raw requests, one by one and many at once, get the same answers.
    serve = tf.saved_model.load(str(serving)).signatures["serving_default"]
    requests = digits["holdout"].examples()[:BATCH]
    together = serve(examples=tf.constant(requests))["outputs"].numpy()
    assert serve(examples=tf.constant(requests[:1]))["outputs"].numpy() == pytest.approx(together[:1], abs=1e-5)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)


def test_what_is_pushed_is_the_network_of_the_structure_within_its_target(root):
    (serving,) = (root / "serving").iterdir()
    text = (serving / "assets.extra" / "structure.json").read_text()
    (found,) = (root / "artifacts").glob("MorphTrainer/structure/*/structure.json")
    assert found.read_text() == text
    structure = morph.Structure.from_json(text)
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]
    variables = tf.saved_model.load(str(serving)).variables
    assert sum(int(np.prod(variable.shape)) for variable in variables) == structure.costs["params"]["structure"]
    assert json.loads(text)["settings"]["search_fraction"] == 0.25
