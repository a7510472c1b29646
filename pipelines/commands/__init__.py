"""The command `morph-tfx`, a file for each subcommand.

In: what a person types. Out: a call of the rooms below, and messages instead of tracebacks.
"""
