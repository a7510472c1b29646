"""A component whose process is killed goes on where it was when it is started again, and tidies up when it is done."""

import json
import pathlib
import subprocess
import sys

import pytest

from morph_tfx.components import MorphStructure, StructureExporter
from tests.components.conftest import RAW_DIGITS, make, narrowed

SCRIPT = pathlib.Path(__file__).parent / "killed_executors.py"


@pytest.fixture(scope="module")
def story(examples, schema, tmp_path_factory):
    """What both components said, attempt by attempt, and where they worked; one process starts them all."""
    root = tmp_path_factory.mktemp("killed")
    shared = {"examples": examples.uri, "schema": schema.uri, "module_file": RAW_DIGITS}
    volume = str(root / "volume")
    config = {"epochs": 4, "batch_size": 100}  # 15 steps an epoch
    asked = [
        {"component": "MorphTrainer", "root": str(root / "search"), "die_at": [20, 50, None], "custom_config": config},
        {
            "component": "Retrainer",
            "root": str(root / "retrain"),
            "structure": narrowed(RAW_DIGITS, root, hidden=12).uri,
            "die_at": [40, None],
            "custom_config": {**config, "checkpoint_dir": volume},
        },
        {
            "component": "MorphTrainer",
            "root": str(root / "in_place"),
            "die_at": [20, 50, None],
            "custom_config": config,
            "more": {"finish": "in_place", "search_fraction": 0.5},  # 30 steps of each part
        },
    ]
    command = [sys.executable, str(SCRIPT), json.dumps([{**shared, **component} for component in asked])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    attempts, said = [], []
    for line in done.stdout.splitlines():
        if line.startswith('{"ended"'):
            attempts.append((json.loads(line)["ended"], said))
            said = []
        elif line.startswith("["):
            said.append(line)
    assert [ended for ended, _ in attempts] == [-9, -9, 0, -9, 0, -9, -9, 0], done.stderr[-3000:]
    return [said for _, said in attempts], root


@pytest.mark.thorough
def test_a_killed_search_goes_on_and_ends_within_its_target(story):
    (first, second, third, *_), root = story
    assert "[search] starts: 60 steps in 4 epochs" in first
    assert not any("continuing" in line for line in first)
    assert "[search] continuing after epoch 1 of 4" in second
    assert "[search] continuing after epoch 3 of 4" in third
    structure = StructureExporter(make(MorphStructure, root / "search" / "structure" / "3")).read()
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]
    assert structure.trajectory[0]["step"] == 1
    assert structure.trajectory[-1]["step"] == structure.settings["steps"] == 60
    assert list((root / "search" / ".system" / "checkpoints").iterdir()) == []


@pytest.mark.thorough
def test_a_killed_retraining_goes_on_from_the_volume_and_exports(story):
    (_, _, _, first, second, *_), root = story
    assert "[retrain] starts: 60 steps in 4 epochs" in first
    assert "[retrain] continuing after epoch 2 of 4" in second
    assert (root / "retrain" / "model" / "2" / "Format-Serving" / "saved_model.pb").exists()
    assert not (root / "retrain" / "model" / "1" / "Format-Serving").exists()
    assert list((root / "volume").iterdir()) == []
    assert not (root / "retrain" / ".system").exists()


@pytest.mark.thorough
def test_a_training_in_place_goes_on_in_the_part_in_which_it_was_killed(story):
    (*_, first, second, third), root = story
    assert not any("continuing" in line for line in first)
    assert "[search] continuing after epoch 1 of 4" in second
    assert "[train] continuing after epoch 3 of 4" in third
    assert not any("[search] step" in line for line in third)
    structure = StructureExporter(make(MorphStructure, root / "in_place" / "structure" / "3")).read()
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]
    assert structure.settings["steps"] == 30
    assert (root / "in_place" / "model" / "3" / "Format-Serving" / "saved_model.pb").exists()
    assert not (root / "in_place" / "model" / "2" / "Format-Serving").exists()
    assert list((root / "in_place" / ".system" / "checkpoints").iterdir()) == []
