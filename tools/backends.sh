#!/usr/bin/env bash
# Runs the tests and examples of the core on Keras' other backends, each in an environment of its own that has no TensorFlow.
#
#   tools/backends.sh jax torch [-- ARGUMENTS FOR PYTEST]     makes .venv-jax and .venv-torch; again: only runs the tests
#
#   MORPH_BACKEND_PYTHON=3.12     the interpreter (a version or a path); the newest from 3.13 down to 3.11 by default
#
# CPU builds only: PyTorch's default wheels for Linux bring gigabytes of CUDA, so its CPU build is asked for by name.
set -euo pipefail
cd "$(dirname "$0")/.."

JAX=0.10.2
TORCH=2.13.0
TORCH_INDEX=https://download.pytorch.org/whl/cpu   # asked only when pip's own sources have no CPU build
KERAS=$(awk '/^name = "keras"$/ { getline; gsub(/"/, "", $3); print $3; exit }' uv.lock)   # that of the TFX 1.16 stack
TESTS="pytest>=8 hypothesis>=6 jinja2>=3 matplotlib>=3.8 rich>=13"

unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH PYTEST_ADDOPTS VIRTUAL_ENV KERAS_BACKEND KERAS_HOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The tests' tensors are tiny: PyTorch's threads would spend their time waiting for each other, XLA's compiler optimising.
export OMP_NUM_THREADS=1 JAX_DISABLE_MOST_OPTIMIZATIONS=1

say() { printf 'backends: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# find_python: sets python, from / so that pyenv's shims answer for themselves and not for our .python-version.
find_python() {
  local wanted=${MORPH_BACKEND_PYTHON:-} candidate candidates=(python3.13 python3.12 python3.11 python3)
  case $wanted in */*) candidates=("$wanted") ;; ?*) candidates=("python$wanted") ;; esac
  for candidate in "${candidates[@]}"; do
    python=$(cd / && "$candidate" -c 'import sys, venv, ensurepip; assert (3, 11) <= sys.version_info < (3, 14); print(sys.executable)' 2>/dev/null) && return
  done
  die "no Python from 3.11 to 3.13 with venv found (tried ${candidates[*]}). Install one, or name it: MORPH_BACKEND_PYTHON=/path/to/python"
}

install_backend() {   # install_backend BACKEND PYTHON-OF-ITS-ENVIRONMENT
  local pip=("$2" -m pip install --quiet)
  case $1 in
    jax) "${pip[@]}" "jax==$JAX" "jaxlib==$JAX" ;;
    torch)
      local build=$TORCH
      [ "$(uname -s)" = Darwin ] || build="$TORCH+cpu"
      "${pip[@]}" "torch==$build" 2>/dev/null ||
        "${pip[@]}" --extra-index-url "$TORCH_INDEX" "torch==$build" ;;
  esac
}

prepare() {   # prepare BACKEND: makes .venv-BACKEND unless it is there and made from the same list
  local environment=.venv-$1 made
  made="$1 jax=$JAX torch=$TORCH keras=$KERAS $TESTS"
  if [ "$(cat "$environment/.inputs" 2>/dev/null)" = "$made" ] && "$environment/bin/python" -c '' 2>/dev/null; then return; fi
  find_python
  say "making $environment on $python"
  "$python" -m venv --clear "$environment" || die "$python cannot make a virtual environment; its answer is above. On Debian: apt-get install python3-venv"
  install_backend "$1" "$environment/bin/python" ||
    die "the CPU build of $1 could not be installed on $python; pip's answer is above. Check the network, or name another Python with MORPH_BACKEND_PYTHON."
  # shellcheck disable=SC2086 # a list
  "$environment/bin/python" -m pip install --quiet "keras==$KERAS" numpy $TESTS ||
    die "the tests' own packages could not be installed; pip's answer is above. Check the network."
  printf '%s\n' "$made" > "$environment/.inputs"
}

backends=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in jax | torch) backends+=("$1") ;; *) die "unknown backend '$1'. Usage: tools/backends.sh jax torch [-- ARGUMENTS FOR PYTEST]" ;; esac
  shift
done
[ $# -eq 0 ] || shift
[ ${#backends[@]} -gt 0 ] || die "name a backend. Usage: tools/backends.sh jax torch [-- ARGUMENTS FOR PYTEST]"

case " $*" in *" tests/"* | *" morph_core"*) paths=() ;; *) paths=(tests/core morph_core) ;; esac
failed=()
for backend in "${backends[@]}"; do
  prepare "$backend"
  python=.venv-$backend/bin/python
  if "$python" -c 'import tensorflow' 2>/dev/null; then die ".venv-$backend has TensorFlow, so it proves nothing. Remove the folder and run again."; fi
  say "the core on $(KERAS_BACKEND=$backend "$python" -c "import keras, $backend as it; print(it.__name__, it.__version__, 'and Keras', keras.__version__)")"
  MORPH_TEST_BACKEND=$backend "$python" -m pytest -m "not slow" ${paths[@]+"${paths[@]}"} "$@" || failed+=("$backend")
done
[ ${#failed[@]} -eq 0 ] || die "tests failed on: ${failed[*]}"
