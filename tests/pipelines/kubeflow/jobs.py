"""A configuration that asks much of a cluster, and the jobs that it and its variations compile to."""

from pathlib import Path

import yaml

from morph_tfx.pipelines.config import parse_config
from morph_tfx.pipelines.kubeflow.compiler import compile_pipeline

TEXT = """
name: digits
data: {format: tfrecord, path: gs://bucket/digits, splits: {train: train/*, eval: eval/*}}
module_file: module.py
label: label
target: 0.35
expand_to: 0.5
cycles: 2
search: {epochs: 20, batch_size: 64}
retrain: {steps: 500, batch_size: 64}
evaluate: {lower_bound: 0.9, max_drop: 0.02}
push_to: gs://bucket/serving
"""
KUBEFLOW = """
kubeflow:
  image: registry.example.com/morph-tfx:1
  pipeline_root: minio://mlpipeline/v2/artifacts/digits
  accelerator: {type: nvidia.com/gpu, count: 2}
  cpu: 4
  memory: 16
  steps:
    "*": {retries: 2, secrets: [{name: s3, env: {AWS_SECRET_ACCESS_KEY: secretkey}}]}
    MorphTrainer: {profile: gpu, accelerator: {count: 2}, memory_request: 8Gi, timeout: 6h}
    MorphTrainer-2: {env: {TF_CPP_MIN_LOG_LEVEL: "2"}, node_selector: {disk: ssd}}
    Transform: {volumes: [{pvc: datasets, mount: /data}], cpu: 500m, image: registry.example.com/data:1}
    Pusher: {cache: false, retries: {count: 1, backoff: 5m}, secrets: [{name: gcs, mount: /var/secrets/gcs}]}
"""


def compiled(directory: Path, text: str = TEXT + KUBEFLOW, lines: list[str] | None = None) -> Path:
    config = parse_config(text, "config.yaml", directory)
    return compile_pipeline(config, directory / "job.yaml", say=(lines if lines is not None else []).append)


def specs(job: Path) -> list[dict]:
    """The documents of a job: the pipeline and, where there is one, the platform."""
    return list(yaml.safe_load_all(job.read_text()))
