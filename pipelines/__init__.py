"""The morph pipeline: a configuration goes in, a run on this machine or a job for Kubeflow comes out.

```python
from morph_tfx.pipelines import compile_pipeline, load_config, run_pipeline

config = load_config("config.yaml")
print(run_pipeline(config).pushed_model)
compile_pipeline(config, "job.yaml")
```

`morph_tfx.pipelines.graph.morph_pipeline.morph_pipeline(config)` is the `tfx.dsl.Pipeline` itself, for other TFX
runners. Names are imported when they are first used, since TFX takes long to load.

The rooms, each of which imports those before it only: `config`, `graph` (the pipelines), `local` and `kubeflow` (the
runners, which know nothing of each other), `commands`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import PipelineConfig, load_config
    from .kubeflow.compiler import compile_pipeline
    from .local.result import RunResult
    from .local.runner import run_pipeline

__all__ = ["PipelineConfig", "RunResult", "compile_pipeline", "load_config", "run_pipeline"]

_MODULES = {
    "PipelineConfig": "config",
    "RunResult": "local.result",
    "compile_pipeline": "kubeflow.compiler",
    "load_config": "config",
    "run_pipeline": "local.runner",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_MODULES[name]}", __name__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("morph_"):
            raise
        raise ModuleNotFoundError(
            f"morph_tfx.pipelines needs {error.name}, which is not installed. "
            "Install what is missing with: pip install 'morph-tfx[tfx]'",
            name=error.name,
        ) from error
    return getattr(module, name)
