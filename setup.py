"""Where the packages lie: `components/` and `pipelines/` are installed under `morph_tfx`; the rest is in pyproject.toml."""

from setuptools import setup

setup()
