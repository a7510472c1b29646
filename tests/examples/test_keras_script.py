"""The notebook: it runs in a fresh kernel, and what is committed of it is what a run left behind.

After a change to its cells, let a run write the outputs anew, and look at them:

    MORPH_TFX_UPDATE_GOLDENS=1 .venv/bin/python -m pytest tests/examples/test_keras_script.py
"""

import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbclient import NotebookClient

from tests.examples.copies import EXAMPLES

NOTEBOOK = EXAMPLES / "keras_script.ipynb"
TARGET = 0.3  # of the seed's FLOPs
# 3 x 3 convolutions: 1 to 32 channels and twice 32 to 32 on 8 x 8 pixels, once more on 4 x 4; then 32 x 10 weights.
SEED_FLOPS = 2 * (9 * (64 * 32 + 2 * 64 * 32 * 32 + 16 * 32 * 32) + 32 * 10)
LEAST_ACCURACY = 0.9  # with the weights kept; chance is 0.1
SVG, MARKDOWN = "image/svg+xml", "text/markdown"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook) -> list[list]:
    """What each cell gave: printed text, or something to show, by its MIME types."""
    return [[sorted(output.get("data", ["printed"])) for output in cell.outputs] for cell in code_cells(notebook)]


def shown(notebook, kind: str) -> list[str]:
    """What the cells show of one MIME type."""
    return [
        output.data[kind]
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type in ("display_data", "execute_result") and kind in output.data
    ]


def complaints(notebook) -> list:
    """Errors, and whatever was said on the standard error."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@pytest.fixture
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def executed(directory):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    metadata = dict(notebook.metadata)
    environment = {
        **os.environ,
        "IPYTHONDIR": str(directory / "ipython"),
        # TensorFlow would speak of GPUs that are not there, and one of its libraries of Python 3.10's age.
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(directory)}},
    )
    client.execute(env=environment)
    notebook.metadata = nbformat.from_dict(metadata)  # the version of the Python that ran it would differ each time
    if os.environ.get("MORPH_TFX_UPDATE_GOLDENS"):
        nbformat.write(notebook, NOTEBOOK)
    return notebook


def test_it_runs_in_a_fresh_kernel_and_shows_what_is_committed(executed, committed):
    assert complaints(executed) == []
    assert kinds(executed) == kinds(committed)
    # The only output that training has no part in.
    [now], [before] = (
        [cell.outputs for cell in code_cells(notebook) if "print(graph)" in cell.source]
        for notebook in (executed, committed)
    )
    assert now == before
    assert f"{SEED_FLOPS:,} FLOPs" in now[0].text


def test_the_pictures_show_every_layer_and_the_target(executed):
    widths, trajectory = (ElementTree.fromstring(picture) for picture in shown(executed, SVG))
    words = {text.strip() for text in widths.itertext()}
    assert {"stem", "block_a", "block_b", "down", "digit"} <= words
    assert "target" in " ".join(trajectory.itertext()).lower()


def test_the_structure_is_within_its_budget_and_keeps_what_the_seed_knew(executed, directory):
    costs = json.loads((directory / "structure.json").read_text())["costs"]["flops"]
    assert costs["seed"] == SEED_FLOPS
    assert costs["structure"] <= TARGET * SEED_FLOPS
    [table] = shown(executed, MARKDOWN)
    rows = [[entry.strip() for entry in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    flops = [int(row[1].replace(",", "")) for row in rows]
    assert flops == [SEED_FLOPS, *[costs["structure"]] * 3]
    seed, at_once, kept, scratch = (float(row[3].removesuffix("%")) / 100 for row in rows)
    assert min(seed, at_once, kept) > LEAST_ACCURACY
    assert scratch > 0.5


def test_the_committed_cells_were_run_in_order_and_without_complaint(committed):
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert complaints(committed) == []
    for cell in cells:
        compile(cell.source, cell.id, "exec")


def test_what_is_committed_shows_its_pictures_and_nothing_of_the_machine_that_ran_it(committed):
    assert len(shown(committed, SVG)) == 2
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    assert not re.search(r"(?<![\w.:/])/(home|root|tmp|usr|Users|work)/|[A-Z]:\\\\", text)
    assert nbformat.validate(committed) is None
