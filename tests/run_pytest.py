"""Runs pytest on the files it is given, for build systems that start a test as a program."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-p", "no:cacheprovider", "--import-mode=importlib", *sys.argv[1:]]))
