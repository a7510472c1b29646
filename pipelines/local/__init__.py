"""A pipeline run on this machine, step by step, and told in words.

In: a `PipelineConfig`, and the user's data and module file, which are looked at before TFX is loaded. Out: a line of
the account for each thing that happens, a `RunResult`, and a summary of what was found.
"""
