"""What a local run works on are copies under names that are their content."""

import os
import sys
from pathlib import Path

import keras
import pytest

import morph_core as morph
from morph_core import MorphError
from morph_tfx.pipelines.local.staging import importable, staged_modules, staged_structure, told_of_originals
from tests.pipelines.retraining import TEXT, config_of


def test_the_copy_has_the_content_and_the_neighbours(config, tmp_path):
    copy = staged_modules(config).module_file
    assert copy.startswith(str(tmp_path / "pipeline_root"))
    assert Path(copy).read_text() == "VALUE = 1\n"
    assert sorted(os.listdir(os.path.dirname(copy))) == ["module.py", "neighbour.py"]


def test_the_same_content_has_the_same_name_and_other_content_another(config, tmp_path):
    first = staged_modules(config).module_file
    assert staged_modules(config).module_file == first
    (tmp_path / "neighbour.py").write_text("OTHER = 3\n")
    second = staged_modules(config).module_file
    assert second != first
    assert os.path.exists(first)


def test_a_module_can_import_its_neighbour_and_the_path_is_clean_afterwards(config):
    before = list(sys.path)
    with importable(staged_modules(config).module_file):
        import neighbour  # pyright: ignore[reportMissingImports]

        assert neighbour.OTHER == 2
    assert sys.path == before


def test_messages_name_the_users_own_files(config, tmp_path):
    staged = staged_modules(config)
    said = f"build_model in {staged.module_file} imports {Path(staged.module_file).parent / 'neighbour.py'}"
    assert told_of_originals(staged, config, said) == (
        f"build_model in {tmp_path / 'module.py'} imports {tmp_path / 'neighbour.py'}"
    )


def test_a_missing_module_file_is_named_by_its_key(config, tmp_path):
    (tmp_path / "module.py").unlink()
    with pytest.raises(MorphError, match=r"module_file: .*module.py is not there. Expected the .py file"):
        staged_modules(config)


def test_a_changed_structure_is_another_one_to_the_cache_and_a_broken_one_is_refused_first(tmp_path):
    path = tmp_path / "structure.json"
    text = TEXT.replace("gs://bucket/", "") + "retrain_pipeline: {structure: structure.json}\n"
    copies = []
    for width in (3, 4, 4):
        inputs = keras.Input((5,))
        model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(8, name="hidden")(inputs)))
        structure = morph.describe(morph.ChannelGraph.from_model(model), {"hidden": width})
        structure.save(path)
        copy = Path(staged_structure(config_of(text, tmp_path)).retrain_pipeline.structure)
        assert (copy.name, morph.Structure.load(copy)) == ("structure.json", structure)
        copies.append(copy.parent)
    assert copies[0] != copies[1] == copies[2]
    path.write_text("{")
    with pytest.raises(MorphError, match=r"structure.json is not valid JSON"):
        staged_structure(config_of(text, tmp_path))
