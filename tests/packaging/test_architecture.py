"""docs/architecture.md and its picture say what the imports say: all rooms, what connects them, files that exist."""

import html
import re
import xml.etree.ElementTree as ElementTree

import pytest

from tests.packaging.rooms import ORDER, imported, known_modules, room_of
from tests.packaging.source import ROOT
from tools import draw_rooms

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PICTURE = draw_rooms.FILE.read_text(encoding="utf-8")
ROOMS = [(layer, room) for layer, steps in ORDER.items() for rooms in steps for room in sorted(rooms)]
ARROWS = [tuple(text.split(" → ")) for text in re.findall(r"<title>([^<]* → [^<]*)</title>", html.unescape(PICTURE))]


def leads(start: str, end: str) -> bool:
    """Whether a way of the picture's arrows leads from one room to another; a layer's frame holds all its rooms."""
    reached, new = {start}, [start]
    while new:
        room = new.pop()
        following = {target for source, target in ARROWS if source in (room, room.partition("/")[0])}
        new.extend(following - reached)
        reached |= following
    return end in reached


def test_the_picture_connects_every_room_with_those_that_it_imports():
    known = known_modules()
    missing = {
        f"{other} → {module}: run `python -m tools.draw_rooms`"
        for module, path in known.items()
        for other in imported(path, known)
        if room_of(module) and (module.split(".")[0], room_of(module)) != (other.split(".")[0], room_of(other))
        if not leads("/".join(other.split(".")[:2]), "/".join(module.split(".")[:2]))
    }
    assert sorted(missing) == []


def test_the_picture_is_that_of_the_code():
    assert draw_rooms.picture() == PICTURE, "run `python -m tools.draw_rooms`"


@pytest.mark.parametrize(("layer", "room"), ROOMS)
def test_the_picture_has_every_room(layer: str, room: str):
    texts = [element.text for element in ElementTree.fromstring(PICTURE).iter() if "class" in element.attrib]
    assert room in texts and draw_rooms.GIVES[layer][room] in texts
    assert len(draw_rooms.GIVES[layer][room]) <= 24, "wider than its box"


def test_a_missing_arrow_would_be_found():
    assert leads("morph_core/cost", "pipelines/commands")
    assert not leads("morph_core/search", "morph_core/report")
    assert not leads("morph_core/report", "morph_core/search")


def test_no_arrow_runs_through_a_box():
    middles, _, _ = draw_rooms.boxes()
    half, tall = draw_rooms.BOX[0] / 2, draw_rooms.BOX[1] / 2
    hit = []
    for (source, target), ((x, y), (end_x, end_y)) in draw_rooms.arrows().items():
        for room, (middle_x, middle_y) in middles.items():
            if room in (source, target):
                continue
            for part in range(101):
                across, down = x + (end_x - x) * part / 100, y + (end_y - y) * part / 100
                if abs(across - middle_x) <= half and abs(down - middle_y) <= tall:
                    hit.append((source, target, room))
                    break
    assert hit == []


def sections() -> dict[str, str]:
    """The text below each heading of a room, by the folder: "morph_core/cost"."""
    found, layer = {}, ""
    for part in re.split(r"^(?=##)", PAGE, flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        if heading.startswith("## `"):
            layer = heading.split("`")[1].strip("/")
        elif heading.startswith("### "):
            found |= {f"{layer}/{room}": text for room in re.findall(r"`(\w+)`", heading)}
    return found


def test_the_page_has_a_paragraph_for_every_room():
    assert set(sections()) == {f"{layer}/{room}" for layer, room in ROOMS if room != "_version"}


@pytest.mark.parametrize("room", sections())
def test_every_file_that_a_paragraph_names_is_in_its_room(room: str):
    folder = ROOT / room if (ROOT / room).is_dir() else (ROOT / room).parent
    named = re.findall(r"`(\w+\.py)`", sections()[room])
    assert [name for name in named if not (folder / name).exists()] == []
    # A section of a configuration and a subcommand have a file of the same name, which the page need not repeat.
    if (ROOT / room).is_dir() and not room.startswith("pipelines/"):
        unnamed = {path.name for path in folder.glob("*.py")} - {*named, "__init__.py", "component.py", "executor.py"}
        assert unnamed == set(), "say on the page what they are for"
