"""What `morph_tfx.pipelines` offers, and that offering it costs nothing."""

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
