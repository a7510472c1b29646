"""The configuration of a pipeline, section by section.

In: one YAML file. Out: a `PipelineConfig`, checked before anything slow happens.
"""
