"""The model card: Markdown that says what the structure says, whatever names are in it."""

import re

import keras
import pytest
from keras import layers

import morph_core as morph
from morph_core.report.card import MOST_VALUES, Slice, evaluated
from tests.core.networks import mlp, residual


@pytest.fixture(scope="module")
def structure() -> morph.Structure:
    graph = morph.ChannelGraph.from_model(residual(12, blocks=2))
    return morph.describe(
        graph,
        {"stem": 6, "b1_in": 0, "b2_in": 3},
        goal={"cost": "flops", "target": 0.5},
        settings={"gate": "fisher", "frozen": {"head": "the model's output"}},
    )


def cells(card: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in card.splitlines() if line[:1] == "|"]


def test_every_width_and_cost_is_on_the_card(structure):
    card = morph.report.card(structure, "Digits", {"features": "image"}, {"val_accuracy": 0.9375})
    assert card.startswith("# Digits\n")
    rows = cells(card)
    assert ["stem", "Conv2D", "12", "6"] in rows
    assert ["b1_in", "Conv2D", "12", "removed"] in rows
    flops = structure.costs["flops"]
    (row,) = [row for row in rows if row[0] == "FLOPs"]
    assert [int(amount.replace(",", "")) for amount in row[1:3]] == [flops["seed"], flops["structure"]]
    assert ["val_accuracy", "0.9375"] in rows
    for text in ("- features: image", "- gate: fisher", "FLOPs at most 50% of the seed", structure.fingerprint):
        assert text in card
    assert "the model's output" not in card


def test_headings_come_in_the_order_of_a_reader_s_questions(structure):
    card = morph.report.card(structure, "Digits", {"features": "image"}, {"val_accuracy": 0.9})
    heads = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert heads == ["Data", "Structure", "Costs", "How it was searched", "Measured"]


def test_what_is_not_known_has_no_heading(structure):
    card = morph.report.card(structure)
    assert "## Data" not in card and "## Measured" not in card


def test_a_name_cannot_break_out_of_its_cell():
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, name="a|b")(inputs)
    graph = morph.ChannelGraph.from_model(keras.Model(inputs, layers.Dense(2, name="head")(hidden)))
    card = morph.report.card(morph.describe(graph, {}), "<script>\n# two")
    assert r"| a\|b | Dense | 8 | 8 |" in card
    assert card.splitlines()[0] == r"# \<script> # two"


def test_equal_structures_give_equal_cards():
    graph = morph.ChannelGraph.from_model(mlp())
    assert morph.report.card(morph.describe(graph, {"d1": 5})) == morph.report.card(morph.describe(graph, {"d1": 5}))


def test_how_good_a_model_is_stands_in_one_table_for_all_examples_and_for_each_value():
    section = evaluated(
        [
            Slice("", None, {"accuracy": 0.93755555, "loss": 0.25}, 1200),
            Slice("country", "AT", {"accuracy": 0.5, "loss": 1.0}, 2),
            Slice("country", "a|b\n# c", {"accuracy": 1.0}),
            Slice("plan", None, {}, 0),
        ]
    )
    assert section.startswith("## Evaluated\n\n| on |")
    assert section.splitlines()[2:] == [
        "| on | examples | accuracy | loss |",
        "| --- | --- | --- | --- |",
        "| all | 1,200 | 0.937556 | 0.25 |",
        "| country = AT | 2 | 0.5 | 1 |",
        r"| country = a\|b # c |  | 1 |  |",
        "| plan: no example has it | 0 |  |  |",
    ]


def test_of_many_values_those_with_the_most_examples_have_rows_and_the_others_are_counted():
    some = [Slice("id", number, {"accuracy": 1.0}, number) for number in range(MOST_VALUES + 7)]
    section = evaluated(some)
    assert [row[0] for row in cells(section)[2:]] == [f"id = {one.value}" for one in some[7:]]
    assert section.endswith("id has 7 more values, each of at most as many examples.")
