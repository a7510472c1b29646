#!/usr/bin/env bash
# Makes .venv, with the TFX stack that this machine can run, out of uv.lock.
#
#   tools/setup.sh            set up; does nothing when everything is already in place
#   tools/setup.sh --check    only say which stack would be chosen and why, or what is missing
#
#   MORPH_PYTHON=3.10         the interpreter (a version or a path), and by it the stack:
#                             3.10 -> TFX 1.16, 3.11 to 3.13 -> TFX 1.21
#   MORPH_EXTRAS="tfx test"   which extras to install (default: "tfx kubeflow test lint docs")
#
# The interpreter decides the stack, and glibc decides the interpreter: TFX 1.21's wheels need 2.39. Everything that could
# be missing is looked for before anything is fetched, and each case ends in one line that says what to do.
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.8      # fetched into .tools/ when PATH has none
UV_OLDEST=0.8.0        # the oldest one on PATH that we trust to read uv.lock
GLIBC_NEW_STACK=2.39   # ml-metadata's and TFDV's wheels for TFX 1.21 are manylinux_2_39
GLIBC_OLD_STACK=2.17   # TFX 1.16's are manylinux2014

# A shell's own Python and uv settings must not leak into .venv; without .pyc files each `import tfx` costs four times the CPU.
unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV UV_PROJECT UV_PROJECT_ENVIRONMENT UV_PYTHON UV_NO_SYNC

# A proxy that inspects TLS has its certificate in the system's store, which uv reads only when it is told to.
if [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ]; then
  export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
fi
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1   # neither is news to somebody who fetches uv

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n1)" = "$2" ]; }   # version 1 >= version 2

# probe PYTHON: its version and its own path, not that of a virtual environment that happens to be active.
# Asked from /, so that pyenv's shims answer for themselves and not for our .python-version.
probe() {
  (cd / && "$1" -c '
import os, sys
own = "%s/bin/python%d.%d" % (sys.base_prefix, *sys.version_info[:2])
print("%d.%d.%d" % sys.version_info[:3], own if os.path.exists(own) else sys.executable)') 2>/dev/null
}

# find_python VERSION: the path of an interpreter of that version (3.10 finds any 3.10.x), on PATH or under pyenv.
find_python() {
  local candidate version path minor
  minor=$(echo "$1" | cut -d. -f1,2)
  for candidate in "python$minor" python3 python "${PYENV_ROOT:-${HOME:-/root}/.pyenv}/versions/$1"*/bin/python; do
    read -r version path < <(probe "$candidate") || continue
    case $version. in "$1".*) echo "$path"; return ;; esac
  done
  return 1
}

choose_stack() {   # sets python (3.10 ... or full version), interpreter (a path, or empty when there is none yet), stack
  local system machine glibc reason version
  system=$(uname -s) machine=$(uname -m)
  [ "$system $machine" = "Linux x86_64" ] ||
    die "this is $system on $machine, but TFX's wheels are for Linux on x86_64 only. Use such a machine or container; \`pip install morph-tfx\` brings the core alone anywhere."
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}') || true
  [ -n "$glibc" ] ||
    die "no glibc here (musl, as on Alpine?), but TFX's wheels need it. Use Debian, Ubuntu or another glibc distribution."
  at_least "$glibc" $GLIBC_OLD_STACK ||
    die "glibc $glibc is too old: TFX 1.16 needs $GLIBC_OLD_STACK or newer. Use a newer distribution."

  interpreter=
  if [ -n "${MORPH_PYTHON:-}" ]; then
    reason="MORPH_PYTHON=$MORPH_PYTHON asks for it"
    python=$MORPH_PYTHON
    case $python in
      */*) read -r python interpreter < <(probe "$(realpath --no-symlinks "$MORPH_PYTHON")") || die "MORPH_PYTHON=$MORPH_PYTHON is not a Python that runs. Name one, or a version such as 3.10." ;;
    esac
  elif at_least "$glibc" $GLIBC_NEW_STACK; then
    reason="the newest that this machine has; glibc $glibc runs TFX 1.21"
    for python in 3.13 3.12 3.11 3.10; do interpreter=$(find_python $python) && break; done
    if [ -z "$interpreter" ]; then python=3.13 reason="glibc $glibc runs TFX 1.21"; fi
  else
    reason="TFX 1.21 would need glibc $GLIBC_NEW_STACK, this machine has $glibc"
    python=3.10
  fi

  case $python in
    3.10 | 3.10.*) stack="TFX 1.16" ;;
    3.11 | 3.11.* | 3.12 | 3.12.* | 3.13 | 3.13.*)
      stack="TFX 1.21"
      at_least "$glibc" $GLIBC_NEW_STACK ||
        die "Python $python means TFX 1.21, which needs glibc $GLIBC_NEW_STACK or newer (Debian 13, Ubuntu 24.04); this machine has $glibc. Unset MORPH_PYTHON or set it to 3.10, for TFX 1.16." ;;
    *) die "Python $python is not supported: no TFX that we know runs on it. Set MORPH_PYTHON to 3.10 (TFX 1.16) or to 3.11, 3.12 or 3.13 (TFX 1.21)." ;;
  esac
  [ -n "$interpreter" ] || interpreter=$(find_python "$python") || true
  say "$stack on Python $python${interpreter:+ ($interpreter)}: $reason."
}

# pyfarmhash, which TFX's data validation requires, is published as source only: it needs a compiler and Python.h.
check_compiler() {
  case " $extras " in *" tfx "*) ;; *) return 0 ;; esac
  if [ -x .venv/bin/python ] && .venv/bin/python -c 'import farmhash' 2>/dev/null; then return 0; fi
  command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null ||
    die "no C++ compiler, but TFX needs pyfarmhash, which is published as source only. Install one: apt-get install g++"
  [ -n "$interpreter" ] || return 0
  "$interpreter" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    die "$interpreter has no Python.h, but TFX needs pyfarmhash, which is published as source only. Install it: apt-get install python3-dev"
}

network() {   # can the package index be reached? Asked only after something failed, to name the cause.
  "${1:-python3}" - "${UV_DEFAULT_INDEX:-https://pypi.org/simple/}" <<'PYTHON' >/dev/null 2>&1
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=10)
except urllib.error.HTTPError:
    pass  # an answer, if not a welcome
PYTHON
}

get_uv() {   # sets uv
  local version any
  uv=$(command -v uv || true)
  if [ -n "$uv" ] && version=$("$uv" --version 2>/dev/null | awk '{print $2}') && at_least "$version" $UV_OLDEST; then return; fi
  uv=$PWD/.tools/uv/bin/uv
  if [ "$("$uv" --version 2>/dev/null | awk '{print $2}')" = $UV_VERSION ]; then return; fi

  any=$interpreter
  [ -n "$any" ] || any=$(find_python 3) ||
    die "no Python found; any Python 3 will do to fetch uv. Install one: apt-get install python3"
  say "fetching uv $UV_VERSION into .tools/uv"
  rm -rf .tools/uv
  # pip when this Python has it, a virtual environment's pip else, and plain Python where Debian took both away.
  if "$any" -m pip --version >/dev/null 2>&1; then
    "$any" -m pip install --quiet --no-warn-script-location --target .tools/uv "uv==$UV_VERSION"
  elif "$any" -m venv .tools/uv >/dev/null 2>&1; then
    .tools/uv/bin/python -m pip install --quiet "uv==$UV_VERSION"
  else
    rm -rf .tools/uv
    "$any" tools/fetch_uv.py "$UV_VERSION" .tools/uv/bin
  fi || {
    network "$any" || die "no network: the package index does not answer, so uv and TFX cannot be fetched. Check the connection and the proxy settings."
    die "the package index did not give us uv $UV_VERSION; its answer is above. Or install uv yourself: https://docs.astral.sh/uv/"
  }
}

# What .venv was made from: when none of it has changed, there is nothing to do.
inputs() { { cat uv.lock pyproject.toml setup.py tools/setup.sh; echo "$PWD|${MORPH_PYTHON:-}|$extras"; } | sha256sum | cut -d' ' -f1; }

extras=${MORPH_EXTRAS-tfx kubeflow test lint docs}
case ${1:-} in
  "")
    if [ "$(cat .venv/.inputs 2>/dev/null)" = "$(inputs)" ] && .venv/bin/python -c '' 2>/dev/null; then exit 0; fi ;;
  --check) ;;
  *) die "unknown argument '$1'. Usage: tools/setup.sh [--check]" ;;
esac

choose_stack
check_compiler
if [ "${1:-}" = --check ]; then exit 0; fi
get_uv

if [ -z "$interpreter" ]; then
  say "no Python $python on this machine; asking uv to download one"
  { "$uv" python install "$python" && interpreter=$("$uv" python find --managed-python "$python"); } ||
    die "no Python $python on this machine, and uv could not download one. Install it (for instance: pyenv install $python), or name another with MORPH_PYTHON."
fi

rm -f .venv/.inputs
arguments=()
for extra in $extras; do arguments+=(--extra "$extra"); done
"$uv" sync --frozen --python "$interpreter" ${arguments[@]+"${arguments[@]}"} || {
  network "$interpreter" || die "no network: the package index does not answer. Check the connection and the proxy settings."
  die "uv could not install the locked packages; its reason is above."
}
inputs > .venv/.inputs
