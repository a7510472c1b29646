"""What tests of faults need of the machine."""

import subprocess

import pytest

from tests.faults.small_disk import with_disk


@pytest.fixture(scope="session")
def mountable(tmp_path_factory) -> None:
    """Skips tests where no file system can be mounted."""
    command = with_disk(tmp_path_factory.mktemp("mountable"), 64, ["true"])
    try:
        able = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:  # no unshare: not Linux
        able = False
    if not able:
        pytest.skip("mounting a file system in a namespace takes root, and 'unshare' and 'mount' of Linux")


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A SavedModel that loads."""
    from tests.components import saved_models  # imports TensorFlow

    return saved_models.save(tmp_path_factory.mktemp("served") / "model")
