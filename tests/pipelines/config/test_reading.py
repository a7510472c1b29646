"""From a file to a configuration: what YAML means, the annotated examples, and files that are none."""

import re
import textwrap

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config import load_config, parse_config
from morph_tfx.pipelines.config.starter import template
from tests.pipelines.config.sample import config_of


def test_the_annotated_example_and_the_demo_are_valid():
    assert parse_config(template("config.yaml"), "config.yaml", "/base").expansions == (1.0, None)
    assert parse_config(template("digits.yaml"), "digits.yaml", "/base").expansions == (0.5, 0.5)


def test_the_annotated_example_is_valid_with_every_comment_taken_away():
    """What is commented out there is an offer, so it has to work. Alternatives cannot all be taken at once."""
    alternatives = (
        r"(expand_to|budgets?|choose|strength|distribution|mixed_precision):|beam: \{runner: (dataflow|flink|spark)"
    )
    offer = re.compile(rf'^# (?= *("\*"|[A-Za-z_]+(-\d)?):| *- \{{)(?! *({alternatives}))')
    text = "\n".join(offer.sub("", line) for line in template("config.yaml").splitlines())
    config = parse_config(text.replace("\ncost: flops ", "\ncost: latency "), "config.yaml", "/base")
    assert config.calibrate is not None and config.export is not None  # the former is for that cost
    assert config.kubeflow is not None
    assert config.kubeflow.accelerator is not None
    assert config.kubeflow.accelerator.count == 1
    search = config.kubeflow.settings_of("MorphTrainer-2", "MorphTrainer")
    assert (search.accelerator.count, search.shared_memory, search.memory) == (2, "2Gi", "32Gi")
    assert config.transform_module_file == "/base/preprocessing.py"


def test_numbers_in_exponent_notation_are_numbers():
    assert config_of("target:", "strength: 1e-3").strength == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: [", ["config.yaml, line 1", "not valid YAML"]),
        ("name: a\nname: b", ["config.yaml, line 2, column 1", "the key 'name' is given twice"]),
        ("- a\n- b", ["expected a mapping of keys", "got list", "morph-tfx init"]),
        ("", ["expected a mapping of keys", "got NoneType"]),
        ("name: !!python/object/apply:os.system [ls]", ["not valid YAML", "could not determine a constructor"]),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text, parts):
    with pytest.raises(MorphError) as caught:
        parse_config(textwrap.dedent(text), "config.yaml", "/base")
    for part in parts:
        assert part in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(MorphError, match=r"nowhere.yaml cannot be read: No such file.*morph-tfx init DIR"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MorphError, match="cannot be read"):
        load_config(tmp_path / "config.yaml")
