"""A TFX pipeline of one's own, with MorphTrainer and Retrainer where Trainer was: python pipeline.py

Image bytes in TFRecords go in; a network of half the FLOPs that answers image bytes comes out, in output/serving.
"""

import argparse
from pathlib import Path

import tensorflow_model_analysis as tfma
from tfx import v1 as tfx

from morph_tfx.components import MorphTrainer, Retrainer

MODULE = Path(__file__).resolve().parent / "module.py"
BATCH_SIZE = 32
TARGET = 0.5  # of the seed's FLOPs
LEAST_ACCURACY = 0.8  # to be pushed


def pipeline(data: Path, output: Path, search_epochs: int, retrain_epochs: int) -> tfx.dsl.Pipeline:
    """The pipeline, for any TFX runner.

    Args:
        data: the directory with `train` and `eval`, as make_data.py writes it.
        output: where artifacts, metadata and the pushed model go.
        search_epochs: of the search for the widths.
        retrain_epochs: of the found network.
    """
    splits = [tfx.proto.Input.Split(name=name, pattern=f"{name}/*.tfrecord.gz") for name in ("train", "eval")]
    examples = tfx.components.ImportExampleGen(input_base=str(data), input_config=tfx.proto.Input(splits=splits))
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    schema = tfx.components.SchemaGen(statistics=statistics.outputs["statistics"])
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        module_file=str(MODULE),
        disable_statistics=True,
    )

    # Where Trainer was: a search for the widths, and the training of what it found. Both read the same module file.
    training_data = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "module_file": str(MODULE),
    }
    search = MorphTrainer(
        **training_data, target=TARGET, custom_config={"epochs": search_epochs, "batch_size": BATCH_SIZE}
    )
    trainer = Retrainer(
        **training_data,
        structure=search.outputs["structure"],
        custom_config={"epochs": retrain_epochs, "batch_size": BATCH_SIZE},
    )

    evaluator = tfx.components.Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        eval_config=tfma.EvalConfig(
            model_specs=[tfma.ModelSpec(signature_name="serving_default", label_key="label")],
            slicing_specs=[tfma.SlicingSpec()],
            metrics_specs=[
                tfma.MetricsSpec(
                    metrics=[
                        tfma.MetricConfig(
                            class_name="SparseCategoricalAccuracy",
                            threshold=tfma.MetricThreshold(
                                value_threshold=tfma.GenericValueThreshold(lower_bound={"value": LEAST_ACCURACY})
                            ),
                        )
                    ]
                )
            ],
        ),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(output / "serving"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="images",
        pipeline_root=str(output / "artifacts"),
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(output / "metadata.sqlite")
        ),
        components=[examples, statistics, schema, transform, search, trainer, evaluator, pusher],
        enable_cache=True,
        beam_pipeline_args=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the pipeline on this machine.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="what make_data.py wrote (default: data)")
    parser.add_argument("--output", type=Path, default=Path("output"), help="where results go (default: output)")
    parser.add_argument("--search-epochs", type=int, default=5)
    parser.add_argument("--retrain-epochs", type=int, default=5)
    options = parser.parse_args()
    made = pipeline(options.data.resolve(), options.output.resolve(), options.search_epochs, options.retrain_epochs)
    tfx.orchestration.LocalDagRunner().run(made)
    reports = (options.output / "artifacts" / "MorphTrainer" / "structure").glob("*/report.html")
    print(f"What the search did: {max(reports, key=lambda report: int(report.parent.name))}")
    serving = sorted((options.output / "serving").glob("*"))
    print(f"What serves: {serving[-1] if serving else f'nothing yet, with an accuracy below {LEAST_ACCURACY:.0%}'}")


if __name__ == "__main__":
    main()
