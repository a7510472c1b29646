"""The rules of rules_python that this repository uses, as the ones built into Bazel before 7."""

py_library = native.py_library
py_test = native.py_test
