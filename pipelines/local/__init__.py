"""A pipeline run on this machine, step by step, and told in words.

In: a `PipelineConfig`. Out: a `RunResult`, and a summary of what was found.
"""
