"""The command `morph-tfx`, with a file for each subcommand; `cli` puts them together.

In: what a person types. Out: a call of the rooms below, its account on the terminal, and messages instead of
tracebacks. What all subcommands share is in `command`, what those that talk to a cluster share in `cluster`.
"""
