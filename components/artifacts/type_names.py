"""Makes our artifact types known by their names, as containers look for them."""

import sys
from typing import TypeVar

from tfx.types.artifact import Artifact

Kind = TypeVar("Kind", bound=type[Artifact])


def importable_by_its_name(kind: Kind) -> Kind:
    """Puts an artifact type where its `TYPE_NAME`, such as `morph_tfx.MorphStructure`, says that it is.

    A container's entrypoint takes the type's name for an import path. `morph_tfx` is a namespace package, without a
    file of its own to define names in, so the type is put there; an entrypoint that has imported morph_tfx.components
    finds it.
    """
    setattr(sys.modules[kind.__module__.partition(".")[0]], kind.__name__, kind)
    return kind
