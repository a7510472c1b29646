"""Where a run cannot write is told before it begins."""

import os
import sqlite3

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.local.places import check_places, make_places
from tests.pipelines.config.sample import config_of


@pytest.fixture
def config(tmp_path):
    places = {"pipeline_root": "root", "metadata": "meta/store.sqlite", "push_to": "pushed"}
    return config_of(*(f"{key}: {tmp_path / place}" for key, place in places.items()))


def test_places_that_are_not_there_yet_are_made_but_for_that_of_pusher(config, tmp_path):
    check_places(config)
    assert list(tmp_path.iterdir()) == []
    make_places(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta", "root"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"no database at all, but some text that is long enough",
            "cannot be read as the sqlite file .*not a database",
        ),
        (b"SQLite format 3\x00" + b"\x00" * 40, "cannot be read as the sqlite file"),
    ],
)
def test_a_metadata_file_that_is_no_database_is_refused(config, tmp_path, content, message):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "store.sqlite").write_bytes(content)
    with pytest.raises(MorphError, match=rf"metadata: .*store.sqlite {message}"):
        check_places(config)
    assert (tmp_path / "meta" / "store.sqlite").read_bytes() == content


def test_a_database_of_something_else_is_refused(config, tmp_path):
    (tmp_path / "meta").mkdir()
    connection = sqlite3.connect(tmp_path / "meta" / "store.sqlite")
    connection.execute("CREATE TABLE invoices (number INTEGER)")
    connection.close()
    with pytest.raises(MorphError, match="is a database of something else; it has the tables invoices"):
        check_places(config)


def test_an_empty_file_and_a_store_of_ml_metadata_are_taken(config, tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "store.sqlite").touch()
    check_places(config)
    connection = sqlite3.connect(tmp_path / "meta" / "store.sqlite")
    connection.execute("CREATE TABLE MLMDEnv (schema_version INTEGER)")
    connection.close()
    check_places(config)


@pytest.mark.parametrize(("key", "place"), [("pipeline_root", "root"), ("push_to", "pushed"), ("metadata", "meta")])
def test_a_file_in_the_place_of_a_directory_is_named(config, tmp_path, key, place):
    (tmp_path / place).touch()
    with pytest.raises(MorphError, match=rf"{key}: {tmp_path / place} is a file"):
        check_places(config)


def test_a_directory_in_the_place_of_the_store_is_named(config, tmp_path):
    (tmp_path / "meta" / "store.sqlite").mkdir(parents=True)
    with pytest.raises(MorphError, match=r"store.sqlite is not a file"):
        check_places(config)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_named(config, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MorphError, match=r"nothing can be written to .*: its permissions forbid it"):
            check_places(config)
    finally:
        tmp_path.chmod(0o700)
