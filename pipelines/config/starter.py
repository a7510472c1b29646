"""Files to start from: copies of the annotated configuration and of the template module file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from morph_core import MorphError


def template(name: str) -> str:
    """The text of a template that is installed with this package."""
    return (files("morph_tfx.pipelines") / "templates" / name).read_text(encoding="utf-8")


def write_templates(directory: Path) -> list[Path]:
    """Writes config.yaml and module.py into a directory, made if need be; never over a file that is there.

    Raises:
        MorphError: one of the files exists already. Nothing is written then.
    """
    texts = {directory / name: template(name) for name in ("config.yaml", "module.py")}
    for path in texts:
        if path.exists():
            raise MorphError(
                f"{path} exists already and is not overwritten. Name another directory, or move it away first."
            )
    directory.mkdir(parents=True, exist_ok=True)
    try:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError:  # half of a file would be in the way of the next try
        for path in texts:
            path.unlink(missing_ok=True)
        raise
    return list(texts)
