"""A pipeline as a job for Kubeflow: compiled, uploaded, scheduled, and what its containers run.

In: a `PipelineConfig`, or a job that was compiled before. Out: the job, a YAML file (`compiler`); runs and schedules of
it on a cluster (`runs`, `schedule`); and in its containers the artifacts of each step (`entrypoint`).
"""
