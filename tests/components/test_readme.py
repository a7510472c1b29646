"""The README's ten lines make components that fit into somebody else's pipeline."""

import re
from pathlib import Path

from tfx import v1 as tfx

README = Path(__file__).parents[2] / "README.md"


def test_the_ten_lines_in_the_readme_make_a_chain_of_components(tmp_path, monkeypatch):
    lines = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    Path("my_model.py").write_text("def build_model(hparams): ...\n\ndef input_fn(*arguments): ...\n", encoding="utf-8")
    examples = tfx.components.ImportExampleGen(input_base="data")
    schema = tfx.components.ImportSchemaGen(schema_file="schema.pbtxt")
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"], schema=schema.outputs["schema"], preprocessing_fn="module.fn"
    )
    names: dict = {"transform": transform}
    exec(compile(lines, str(README), "exec"), names)  # noqa: S102 -- our own text
    chain = [names[name] for name in ("search", "again", "trainer")]
    assert chain[1].inputs["seed_structure"] is chain[0].outputs["structure"]
    assert chain[2].inputs["structure"] is chain[1].outputs["structure"]
    assert chain[2].outputs["model"].type is tfx.types.standard_artifacts.Model
