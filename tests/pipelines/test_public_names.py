"""What `morph_tfx.pipelines` offers, that offering it costs nothing, and that a configuration is read without TFX."""

import subprocess
import sys

import pytest

import morph_tfx.pipelines as pipelines


@pytest.mark.parametrize("name", pipelines.__all__)
def test_every_public_name_is_there(name):
    assert getattr(pipelines, name).__name__ == name


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_confg'"):
        pipelines.load_confg  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, morph_tfx.pipelines; print({'tfx', 'keras', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_file_of_the_configuration_imports_tfx():
    """A mistake in a configuration is reported within seconds; TFX alone takes half a minute to import."""
    code = (
        "import importlib, pkgutil, sys, morph_tfx.pipelines.config as room\n"
        "names = [found.name for found in pkgutil.iter_modules(room.__path__)]\n"
        "for name in names: importlib.import_module(f'{room.__name__}.{name}')\n"
        "print(len(names) > 5, {'tfx', 'apache_beam', 'kfp', 'ml_metadata'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"
