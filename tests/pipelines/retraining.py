"""A configuration whose model is retrained, for the graph of the pipeline and for the job that it compiles to."""

from morph_tfx.pipelines.config import PipelineConfig, parse_config

TEXT = """
name: digits
data: {format: tfrecord, path: gs://bucket/digits, splits: {train: "day-{SPAN}/train/*", eval: "day-{SPAN}/eval/*"}}
module_file: module.py
label: label
hparams: {widths: [8, 16]}
target: 0.35
cycles: 2
search: {epochs: 20, batch_size: 64}
retrain: {epochs: 30, batch_size: 16}
evaluate: {lower_bound: 0.9, max_drop: 0.02}
push_to: gs://bucket/serving
kubeflow: {image: "registry.example.com/morph-tfx:1", steps: {MorphTrainer-2: {memory: 16Gi}, Retrainer: {memory: 8Gi}}}
"""
IMPORTED = "retrain_pipeline: {structure: gs://bucket/best/structure.json}\n"
BASELINE = TEXT.replace("kubeflow: {", "kubeflow: {baseline_model: gs://bucket/serving/1, ")


def config_of(text: str = TEXT, base="/base") -> PipelineConfig:
    return parse_config(text, "config.yaml", base)
