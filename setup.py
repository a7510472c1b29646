"""Which folders are which packages: `components/` and `pipelines/` install under `morph_tfx`.

Everything else about the distribution is in pyproject.toml.

The folders lie at the top of the repository, but a package called `components` in somebody's site-packages would be a
trap, so they are mapped below the namespace package `morph_tfx` (which therefore has no `__init__.py`). An editable
install follows the same map.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "morph_core": "morph_core",
    "morph_tfx.components": "components",
    "morph_tfx.pipelines": "pipelines",
}

setup(
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in (package, *(f"{package}.{subpackage}" for subpackage in find_packages(folder)))
    ],
    package_dir=FOLDERS,
    package_data={
        "": ["py.typed"],
        "morph_core.report": ["templates/*.j2"],
        "morph_tfx.pipelines": ["templates/*.py", "templates/*.yaml"],
    },
    # Only the files named above: MANIFEST.in is for the source distribution and must not decide what a wheel holds.
    include_package_data=False,
)
