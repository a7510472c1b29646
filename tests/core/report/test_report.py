"""The report: what a reader must find on the page, and what must never be on it."""

from __future__ import annotations

import html.parser
import importlib.util
import itertools
import re
import sys
from typing import Any
from xml.etree import ElementTree

import pytest

from morph_core import MorphError, report
from morph_core.report import figures
from morph_core.report import page as report_page
from morph_core.structure.structure import Structure

drawing = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jinja2", "matplotlib")),
    reason="needs Matplotlib and Jinja2, from the extra tfx",
)

SVG = "{http://www.w3.org/2000/svg}"
WIDTHS = {"stem": (16, 8), "block_conv1": (32, 20), "block_conv2": (32, 0), "wider": (40, 60), "logits": (10, 10)}


def structure(widths: dict[str, tuple[int, int]] = WIDTHS, **fields: Any) -> Structure:
    layers = [
        {
            "name": name,
            "kind": "Conv2D",
            "group": None if name == "logits" else f"{name}_group",
            "seed_width": seed,
            "width": now,
            "costs": {"flops": [seed * 1e6, now * 1e6], "params": [seed * 9.0, now * 9.0]},
        }
        for name, (seed, now) in widths.items()
    ]
    gone = [name for name, (_, now) in widths.items() if not now]
    content: dict[str, Any] = {
        "fingerprint": "sha256:0123",
        "groups": {
            layer["group"]: {"seed_width": layer["seed_width"], "width": layer["width"], "alive": None}
            for layer in layers
            if layer["group"]
        },
        "layers": layers,
        "removed": {"layers": [*gone, "lonely_relu"], "branches": [[name, f"{name}_bn"] for name in gone]},
        "costs": {"flops": {"seed": 2e6, "structure": 0.988e6}, "params": {"seed": 5000.0, "structure": 6000.0}},
        "goal": {"cost": "flops", "target": 0.5},
        "settings": {"gate": "gamma"},
        "trajectory": [
            {"step": 0, "cost": 1.0, "target": 1.0, "alive": 130, "loss": 2.3},
            {"step": 100, "cost": 0.7, "target": 0.75, "alive": 110, "loss": None},
            {"step": 200, "cost": 0.493, "target": 0.5, "alive": 98, "loss": 0.2},
        ],
    }
    return Structure(**(content | fields))


class Page(html.parser.HTMLParser):
    """Tags with their attributes, the rows of the table of layers, and the text a reader sees."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[tuple[str, list[str]]] = []
        self.texts: list[str] = []
        self.inside: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)
        if tag == "tr":
            self.rows.append((dict(attrs).get("class") or "", []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            continue

    def handle_data(self, data: str) -> None:
        if "style" not in self.inside:
            self.texts.append(data)
        if ("td" in self.inside or "th" in self.inside) and data.strip():
            self.rows[-1][1].append(data.strip())

    def row(self, name: str) -> tuple[str, list[str]]:
        found = [(kind, cells) for kind, cells in self.rows if len(cells) > 3 and cells[0] == name]
        assert len(found) == 1, f"{name!r} has {len(found)} rows"
        return found[0]


def texts(picture: bytes) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def extent(picture: bytes, identity: str) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the rectangle with this id."""
    element = ElementTree.fromstring(picture).find(f".//{SVG}g[@id='{identity}']/{SVG}path")
    assert element is not None, f"there is no rectangle {identity!r}"
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", element.attrib["d"])]
    return min(numbers[::2]), max(numbers[::2]), min(numbers[1::2]), max(numbers[1::2])


@drawing
def test_every_layer_is_in_the_table_and_in_the_picture():
    page, drawn = Page(report.html(structure())), texts(report.pictures(structure())["widths.svg"])
    for name, (seed, now) in WIDTHS.items():
        cells = page.row(name)[1]
        assert cells[1:3] == [str(seed), str(now) if now else "removed"]
        assert "Conv2D" in cells and name in drawn
    assert page.row("stem")[1] == ["stem", "16", "8", "16.0\u00a0M", "8.00\u00a0M", "144", "72", "Conv2D", "stem_group"]


@drawing
def test_rectangles_are_as_wide_as_their_layers():
    picture = report.pictures(structure())["widths.svg"]
    left, right, _, _ = extent(picture, "layer-3-seed")
    unit = (right - left) / WIDTHS["wider"][0]
    for index, (seed, now) in enumerate(WIDTHS.values()):
        for side, width in (
            ("seed", seed),
            ("learned", now or seed),
        ):  # a removed layer shows the outline of what it was
            left, right, _, _ = extent(picture, f"layer-{index}-{side}")
            assert right - left == pytest.approx(unit * width, rel=1e-3)


@drawing
@pytest.mark.parametrize("count", [1, 8, 105, 600])
def test_rows_never_overlap_and_names_keep_their_distance(count):
    picture = report.pictures(structure({f"layer_{index}": (64, 48) for index in range(count)}))["widths.svg"]
    edges = [extent(picture, f"layer-{index}-learned")[2:] for index in (range(count) if count < 200 else range(9))]
    assert all(bottom > top for top, bottom in edges)
    assert all(edges[index][1] < edges[index + 1][0] for index in range(len(edges) - 1))
    named = [
        float(element.attrib["y"])
        for element in ElementTree.fromstring(picture).iter(f"{SVG}text")
        if (element.text or "").startswith("layer_")
    ]
    assert len(named) == count if count <= 150 else count / 5 < len(named) < count
    assert all(after - before >= figures.READABLE_ROW for before, after in itertools.pairwise(named))


@drawing
def test_a_normalisation_is_in_the_table_but_makes_no_channels_of_its_own():
    #   embed (0 FLOPs) -> conv -> norm (0 FLOPs, conv's group)
    mixed = structure({"embed": (8, 8), "conv": (16, 12), "norm": (16, 12)})
    for name, group, flops in (("embed", "embed", [0, 0]), ("norm", "conv_group", [0, 0])):
        layer = next(layer for layer in mixed.layers if layer["name"] == name)
        layer["group"], layer["costs"]["flops"] = group, flops
    page, drawn = Page(report.html(mixed)), texts(report.pictures(mixed)["widths.svg"])
    assert {"embed", "conv"} <= set(drawn) and "norm" not in drawn
    assert "Channels 83.3% of the seed 24 → 20" in page.text
    assert "2 layers with channels of their own: 1 narrower, 1 unchanged, 0 removed." in page.text
    assert page.row("norm")[0] == "follows" and page.row("norm")[1][1:3] == ["16", "12"]
    unknown = structure({"conv": (16, 12), "norm": (16, 12)})
    for layer in unknown.layers:
        layer["group"] = "conv"
        del layer["costs"]["flops"]
    assert "norm" in texts(report.pictures(unknown)["widths.svg"])


@drawing
def test_removed_layers_and_branches_are_marked():
    page = Page(report.html(structure()))
    assert page.row("block_conv2")[0] == "removed"
    assert all(page.row(name)[0] == "" for name in WIDTHS if name != "block_conv2")
    assert "branch block_conv2, block_conv2_bn" in page.text
    assert "layers lonely_relu" in page.text
    assert "removed" in texts(report.pictures(structure())["widths.svg"])


@drawing
def test_a_structure_that_removed_nothing_says_so():
    whole = structure({"stem": (16, 8), "logits": (10, 10)}, removed={"layers": [], "branches": []})
    assert "Every layer and every branch of the seed is still there." in Page(report.html(whole)).text


@drawing
@pytest.mark.parametrize(
    "name",
    [
        '<img src="https://example.org/x.png" onerror="alert(1)">',
        "</svg></title><script>alert(1)</script>",
        'a" onmouseover="alert(1)',
        "{{ 7 * 7 }}",
        "$x_1^2$ --> & ]]>",
        "#0b7a75 url(#clip)",
    ],
)
def test_names_are_text_wherever_they_stand(name):
    hostile = structure(
        {name: (16, 8), "gone" + name: (16, 0)},
        settings={name: name, "frozen": {name: name}},
        goal={"cost": "flops", "target": 0.5},
    )
    page = Page(report.html(hostile, title=name))
    assert page.row(name)[1][0] == name
    assert page.texts.count(name) >= 5  # title, heading, table, frozen, settings
    assert not {"img", "script", "a", "link"} & {tag for tag, _ in page.tags}
    assert not [attribute for _, attributes in page.tags for attribute in attributes if attribute.startswith("on")]
    assert texts(report.pictures(structure({name[:28]: (4, 4)}))["widths.svg"]).count(name[:28]) == 1


@drawing
def test_control_characters_in_a_name_leave_the_pictures_valid():
    odd = structure({"a\x00b\nc\ud800": (16, 8)})
    assert "a\ufffdb\ufffdc\ufffd" in texts(report.pictures(odd)["widths.svg"])
    assert "a\ufffdb\ufffdc\ufffd" in report.html(odd)


@drawing
def test_the_page_refers_to_nothing_outside_itself():
    text = report.html(structure())
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & {tag for tag, _ in page.tags}
    assert not [attributes for _, attributes in page.tags if {"src", "srcset", "action", "data"} & set(attributes)]
    references = [value for _, attributes in page.tags for key, value in attributes.items() if key.endswith("href")]
    assert all(value and value.startswith("#") for value in references)
    assert "://" not in text and "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


@drawing
def test_ids_are_unique_and_every_reference_resolves():
    text = report.html(structure())
    identities = [attributes["id"] for _, attributes in Page(text).tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert set(re.findall(r"url\(#([^)]*)\)", text) + re.findall(r'href="#([^"]*)"', text)) <= set(identities)


@drawing
def test_pictures_are_xml_without_a_trajectory_only_the_widths():
    drawn = report.pictures(structure())
    assert sorted(drawn) == ["trajectory.svg", "widths.svg"]
    for picture in drawn.values():
        assert ElementTree.fromstring(picture).tag == f"{SVG}svg"
    without = structure(trajectory=[])
    assert sorted(report.pictures(without)) == ["widths.svg"]
    assert "The search" not in [text.strip() for text in Page(report.html(without)).texts]
    assert "The search" in [text.strip() for text in Page(report.html(structure())).texts]


@drawing
def test_equal_structures_give_equal_bytes_whatever_matplotlib_is_set_to():
    import matplotlib

    page, drawn = report.html(structure()), report.pictures(structure())
    with matplotlib.rc_context(
        {"svg.hashsalt": "mine", "svg.fonttype": "path", "font.size": 31, "axes.facecolor": "red"}
    ):
        before = dict(matplotlib.rcParams)
        assert report.pictures(structure()) == drawn
        assert report.html(structure()) == page
        assert dict(matplotlib.rcParams) == before
    assert b"<dc:date>" not in b"".join(drawn.values())


@drawing
def test_every_colour_of_the_pictures_follows_the_readers_light_or_dark_setting():
    text = report.html(structure())
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn)
    light, dark = (set(re.findall(r"(--[a-z-]+):", part)) for part in text.split("@media screen and (prefers", 1))
    assert set(re.findall(r"var\((--[a-z-]+)\)", text)) <= light == dark


@drawing
def test_headline_figures_say_before_after_and_percent():
    text = Page(report.html(structure())).text
    assert "FLOPs 49.4% of the seed 2.00 M → 988 k (−50.6%)" in text
    assert "Parameters 120% of the seed 5.00 k → 6.00 k (+20%)" in text
    assert "Channels 75.4% of the seed 130 → 98 (−24.6%)" in text
    assert "5 layers with channels of their own: 2 narrower, 1 wider, 1 unchanged, 1 removed." in text
    assert "A multiply-add counts as 2 FLOPs." in text


@drawing
@pytest.mark.parametrize(
    ("goal", "settings", "sentence"),
    [
        ({"target": 0.5}, {}, "✓ Goal met FLOPs at most 50% of the seed; reached 49.4%."),
        ({"target": 0.4}, {}, "✗ Goal missed FLOPs at most 40% of the seed; reached 49.4%, 23.5% above it."),
        (
            {"budget": 1e6},
            {},
            "✓ Goal met FLOPs at most 50% of the seed (a budget of 1.00 M); reached 49.4%.",
        ),
        ({"strength": 1e-3}, {}, "No target The search ran with a fixed strength of 0.001 on FLOPs."),
        (
            {"target": 0.492},
            {"expanded_to": 1.0, "multiplier": 1.37},
            "✗ Goal missed FLOPs at most 49.2% of the seed; the search ended at 49.3%, 0.2% above it. "
            "Then expanded by a width multiplier of 1.37 to 49.4% of the seed (limit 100%).",
        ),
    ],
)
def test_the_goal_is_told_with_its_verdict(goal, settings, sentence):
    assert sentence in Page(report.html(structure(goal={"cost": "flops", **goal}, settings=settings))).text


SEVERAL = {
    "goal": {"target": {"flops": 0.5, "params": 1.1}},
    "trajectory": [
        {"step": 0, "cost": 1.0, "target": 1.0, "alive": 130, "loss": 2.3}
        | {"cost_flops": 1.0, "target_flops": 1.0, "cost_params": 1.0, "target_params": 1.0},
        {"step": 200, "cost": 0.493, "target": 0.5, "alive": 98, "loss": 0.2}
        | {"cost_flops": 0.493, "target_flops": 0.5, "cost_params": 0.4, "target_params": 1.1},
    ],
}


@drawing
def test_several_goals_are_told_and_drawn_each():
    text = Page(report.html(structure(**SEVERAL))).text
    assert "✗ Goal missed FLOPs at most 50% of the seed; reached 49.4%. " in text
    assert "Parameters at most 110% of the seed; reached 120%, 9.1% above it." in text
    drawn = texts(report.pictures(structure(**SEVERAL))["trajectory.svg"])
    assert {"FLOPs, share of the seed's", "Parameters, share of the seed's"} <= set(drawn)
    assert {"cost 49.3%", "target 50%", "cost 40%", "target 110%"} <= set(drawn)


@drawing
def test_an_expansion_to_several_limits_is_told_by_each():
    settings = {"multiplier": 1.5, "expanded_to": {"flops": 1.0, "params": 1.2}}
    text = Page(report.html(structure(settings=settings, **SEVERAL))).text
    assert "✓ Goal met FLOPs at most 50% of the seed; the search ended at 49.3%. Parameters at most 110%" in text
    assert "to 49.4% of the seed's FLOPs (limit 100%) and 120% of the seed's Parameters (limit 120%)." in text


@drawing
def test_what_the_granularity_left_is_told_beside_the_goal():
    why = "6.0% of the limit on flops is left, because not one more step fits"
    settings = {"budget": {"binding": "flops", "left": 0.06, "granularity": why}}
    assert f"reached 49.4%. {why}." in Page(report.html(structure(settings=settings))).text


@drawing
def test_an_expanded_structure_without_a_trajectory_is_not_judged():
    text = Page(report.html(structure(trajectory=[], settings={"multiplier": 1.5}))).text
    assert "Where the search ended was not recorded." in text
    assert "Goal met" not in text and "Goal missed" not in text


@drawing
def test_frozen_groups_are_listed_with_their_reasons():
    text = Page(report.html(structure(settings={"frozen": {"attn_3": "it mixes channels and has no rule"}}))).text
    assert "Kept whole" in text and "attn_3 it mixes channels and has no rule" in text
    assert "logits fixed; printing the ChannelGraph" in Page(report.html(structure())).text


@drawing
def test_a_cost_of_another_name_gets_its_columns():
    timed = structure(
        costs={"latency_ms": {"seed": 12.5, "structure": 6.25}}, goal={"cost": "latency_ms", "target": 0.5}
    )
    timed.layers[0]["costs"]["latency_ms"] = [0.25, 0.125]
    page = Page(report.html(timed))
    assert "latency ms 50% of the seed 12.5 → 6.25 (−50%)" in page.text
    assert page.row("stem")[1][3:5] == ["0.25", "0.125"]
    assert page.row("logits")[1][3:5] == ["–", "–"]  # this layer's cost is not known


@drawing
def test_the_search_is_drawn_against_its_target():
    drawn = texts(report.pictures(structure())["trajectory.svg"])
    assert {"cost 49.3%", "target 50%", "channels alive (tied ones count once)", "98", "loss"} <= set(drawn)
    assert "Learned" in texts(report.pictures(structure())["widths.svg"])
    assert "Learned, then expanded" in texts(report.pictures(structure(settings={"multiplier": 1.5}))["widths.svg"])
    unsteered = [{"step": 0, "cost": 1.0, "target": None, "alive": 130, "loss": None}]
    drawn = texts(report.pictures(structure(trajectory=unsteered))["trajectory.svg"])
    assert "cost 100%" in drawn and "loss" not in drawn
    assert not [text for text in drawn if text.startswith("target")]


@drawing
def test_tuples_read_like_lists():
    listed = structure()
    tupled = structure(
        layers=tuple(listed.layers),
        removed={key: tuple(value) for key, value in listed.removed.items()},
        trajectory=tuple(listed.trajectory),
    )
    assert report.html(tupled) == report.html(listed)


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_a_missing_dependency_names_the_extra_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MorphError, match=r"It needs Matplotlib and Jinja2.*pip install 'morph-tfx\[tfx\]'"):
        report.html(structure())


def test_the_module_loads_without_its_dependencies(monkeypatch):
    for name in ("jinja2", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("morph_core.report.fresh", report_page.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert callable(fresh.html)
