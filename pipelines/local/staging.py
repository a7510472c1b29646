"""Copies of the user's files that a local run works on, under names that are hashes of their content.

TFX packs a module file into a wheel and has pip install it in every step. A local run does something simpler: it takes
a copy of the module's directory. Editing the file in the middle of a run changes nothing, and editing it before the
next run makes TFX's cache notice, which knows a file by its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from morph_core.files import digest_of, sources_beside
from morph_core.structure.structure import Structure

from ..config import PipelineConfig, RetrainPipelineConfig
from ..graph.module_files import check_is_python


def staged_modules(config: PipelineConfig) -> PipelineConfig:
    """The configuration with its module files replaced by copies below its pipeline root, named by content."""
    files = {"module_file": config.module_file}
    if config.transform_module_file is not None:
        files["transform_module_file"] = config.transform_module_file
    update = {key: str(_stage(key, Path(file), Path(config.pipeline_root))) for key, file in files.items()}
    return config.model_copy(update=update)


def told_of_originals(staged: PipelineConfig, original: PipelineConfig, message: str) -> str:
    """A message with the user's own files in the place of the copies that a run works on."""
    for copy, file in (
        (staged.module_file, original.module_file),
        (staged.preprocessing_file, original.preprocessing_file),
    ):
        message = message.replace(str(Path(copy).parent), str(Path(file).parent))
    return message


def staged_structure(config: PipelineConfig) -> PipelineConfig:
    """The configuration with its structure, if it names one, replaced by a copy that is named by its content.

    TFX knows an imported artifact by its place: of a file that was changed it would take the cached results.
    """
    structure = config.retrain_pipeline.structure
    if structure is None:
        return config
    path = Path(structure) / "structure.json" if Path(structure).is_dir() else Path(structure)
    text = Structure.load(path).to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    copy = Path(config.pipeline_root) / "_structures" / digest / "structure.json"
    copy.parent.mkdir(parents=True, exist_ok=True)
    Structure.from_json(text).save(copy)
    return config.model_copy(update={"retrain_pipeline": RetrainPipelineConfig(structure=str(copy))})


@contextlib.contextmanager
def importable(*files: str) -> Iterator[None]:
    """The directories of these files on `sys.path`, so that a module file can import its neighbours."""
    directories = list(dict.fromkeys(str(Path(file).parent) for file in files))
    sys.path += directories  # at the end: a neighbour called like a library must not hide it
    try:
        yield
    finally:
        for directory in directories:
            with contextlib.suppress(ValueError):
                sys.path.remove(directory)


def _stage(key: str, file: Path, pipeline_root: Path) -> Path:
    check_is_python(key, file)
    sources = sources_beside(file)  # the neighbours too, as TFX packs them
    directory = pipeline_root / "_modules" / digest_of(sources)[:16]
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=directory.parent))
        for source in sources:
            shutil.copyfile(source, temporary / source.name)
        temporary.chmod(0o755)
        try:
            temporary.rename(directory)
        except OSError:
            shutil.rmtree(temporary)
            if not directory.is_dir():  # otherwise another run was faster, with the same content
                raise
    return directory / file.name
