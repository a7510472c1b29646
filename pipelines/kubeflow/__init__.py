"""A pipeline as a job for Kubeflow: compiled, uploaded, scheduled, and what its containers run.

In: a `PipelineConfig`. Out: a YAML file, or a run or schedule of it on a cluster.
"""
