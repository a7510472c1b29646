"""The README's first example runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_script_in_the_readme_runs(tmp_path, monkeypatch):
    script = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(script, str(README), "exec"), names)  # noqa: S102 -- our own text
    structure = names["structure"]
    assert structure.costs["flops"]["structure"] <= 0.5 * structure.costs["flops"]["seed"]
    small = names["small"]
    assert small.count_params() == structure.costs["params"]["structure"]
    assert len(small.history.history["accuracy"]) == 4
    assert (tmp_path / "structure.json").exists()
