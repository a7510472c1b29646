"""The baseline is the latest blessed model other than the one that is evaluated, with real artifacts."""

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts

from morph_tfx.pipelines.baseline import LatestOtherBlessedModel


@pytest.fixture
def store():
    config: metadata_store_pb2.ConnectionConfig = metadata_store_pb2.ConnectionConfig()
    config.fake_database.SetInParent()
    return mlmd.MetadataStore(config)


def model(number: int) -> standard_artifacts.Model:
    artifact = standard_artifacts.Model()
    artifact.id = number
    return artifact


def blessing(number: int, of: int, blessed: bool = True) -> standard_artifacts.ModelBlessing:
    artifact = standard_artifacts.ModelBlessing()
    artifact.id = number
    artifact.set_int_custom_property("current_model_id", of)
    artifact.set_int_custom_property("blessed", int(blessed))
    return artifact


def resolve(store, candidate: int, models: list[int], blessings: list) -> list[int]:
    given = {"model": [model(n) for n in models], "model_blessing": blessings, "candidate": [model(candidate)]}
    resolved = LatestOtherBlessedModel().resolve_artifacts(store, given)
    assert resolved is not None
    assert [artifact.id for artifact in resolved["candidate"]] == [candidate]
    return [artifact.id for artifact in resolved["model"]]


def test_the_first_model_has_no_baseline(store):
    assert resolve(store, 1, [1], []) == []


def test_a_blessed_model_from_the_cache_is_not_its_own_baseline(store):
    assert resolve(store, 1, [1], [blessing(11, of=1)]) == []


def test_the_latest_other_blessed_model_is_the_baseline(store):
    assert resolve(store, 4, [1, 2, 3, 4], [blessing(11, of=1), blessing(12, of=2)]) == [2]


def test_a_model_that_was_not_blessed_is_no_baseline(store):
    assert resolve(store, 3, [1, 2, 3], [blessing(11, of=1), blessing(12, of=2, blessed=False)]) == [1]
