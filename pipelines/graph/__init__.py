"""The pipelines themselves, the stages they share, and the resolvers that find what was pushed before.

In: a `PipelineConfig`. Out: a `tfx.dsl.Pipeline`, for any runner. All but `module_files`, which is looked at first,
imports TFX.
"""
