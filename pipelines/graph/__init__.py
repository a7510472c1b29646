"""The pipelines themselves, the stages they share, and the resolvers that find what was pushed before.

In: a `PipelineConfig`. Out: a `tfx.dsl.Pipeline`. Importing these imports TFX.
"""
