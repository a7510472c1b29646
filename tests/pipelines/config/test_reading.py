"""From a file to a configuration: what YAML means, the annotated examples, and files that are none."""

import re
import textwrap
import time

import pytest

from morph_core import MorphError
from morph_tfx.pipelines.config import load_config, parse_config
from morph_tfx.pipelines.config.starter import template
from tests.pipelines.config.sample import GOOD, config_of


def test_the_annotated_example_and_the_demo_are_valid():
    assert parse_config(template("config.yaml"), "config.yaml", "/base").expansions == (1.0, None)
    assert parse_config(template("digits.yaml"), "digits.yaml", "/base").expansions == (0.5, 0.5)


def everything_offered() -> str:
    """The annotated example with every comment taken away. Alternatives cannot all be taken at once."""
    alternatives = (
        r"(expand_to|budgets?|choose|strength|distribution|mixed_precision):|beam: \{runner: (dataflow|flink|spark)"
    )
    offer = re.compile(rf'^# (?= *("\*"|[A-Za-z_]+(-\d)?):| *- \{{)(?! *({alternatives}))')
    text = "\n".join(offer.sub("", line) for line in template("config.yaml").splitlines())
    return text.replace("\ncost: flops ", "\ncost: latency ")  # for 'calibrate'


def test_the_annotated_example_is_valid_with_every_comment_taken_away():
    """What is commented out there is an offer, so it has to work."""
    config = parse_config(everything_offered(), "config.yaml", "/base")
    assert config.calibrate is not None and config.export is not None
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


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"config.yaml, line 5, column \d+: there are more than 10,000 values, with those that aliases"),
        ("a: &a [*a]", r"line 1, column 8: the alias \*a stands inside of what it stands for"),
        ("a: " + "[" * 5000, r"line 1, column \d+: values are nested more than 32 deep"),
        ("a: 1\n" * 60_000, r"the file is larger than 262,144 bytes"),
        (f"name: {'9' * 5000}", r"line 1, column 7: '9+' cannot be read as .*int"),
        (f"name: {'9' * 40}", r"line 1, column 7: a whole number is larger than a computer counts"),
        ("name: 2024-13-45", r"line 1, column 7: '2024-13-45' cannot be read as .*timestamp: month must be"),
        ("name: !!bool maybe", r"line 1, column 7: 'maybe' cannot be read as .*bool"),
        ('name: "a\\0b"', r"line 1, column 7: .* holds a character that is no text"),
        ('name: "\\ud800"', r"line 1, column 7: .* holds a character that is no text"),
    ],
    ids=["alias bomb", "alias of itself", "depth", "size", "digits", "64 bits", "date", "tag", "zero", "half"],
)
def test_what_would_take_for_ever_or_cannot_be_a_value_is_refused_at_once(text, message):
    start = time.process_time()
    with pytest.raises(MorphError, match=message):
        parse_config(text, "config.yaml", "/base")
    assert time.process_time() - start < 5


def test_an_endless_file_is_read_no_further_than_a_configuration_can_be():
    with pytest.raises(MorphError, match=r"/dev/zero: the file is larger than"):
        load_config("/dev/zero")


def test_aliases_and_merged_keys_are_taken():
    text = GOOD.replace("search: {epochs: 3}", "search: &it {epochs: 3, batch_size: 16}")
    config = parse_config(text.replace("{steps: 100,", "{<<: *it, epochs: 5,"), "config.yaml", "/base")
    assert (config.retrain.epochs, config.retrain.batch_size) == (5, 16)


def test_problems_are_told_with_their_lines():
    with pytest.raises(MorphError) as caught:
        parse_config("name: digits\ndata:\n  format: cvs\n  path: data\n\ntarget: 2\n", "config.yaml", "/base")
    told = str(caught.value).splitlines()
    assert told[1].startswith("  line 3: data.format: expected 'tfrecord' or 'csv', got 'cvs'")
    assert any(line.startswith("  line 6: target: expected less than or equal to 1, got 2") for line in told)
    assert any(line.startswith("  module_file: missing, and required") for line in told)
