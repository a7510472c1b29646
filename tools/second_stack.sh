#!/usr/bin/env bash
# Runs tests on TFX 1.21 and Debian 13's Python, in a root folder that debootstrap makes, on a machine that is too old for it.
#
#   tools/second_stack.sh [--cache FOLDER] [-- ARGUMENTS FOR PYTEST]     default arguments: TESTS below;
#                                                                        `-- "tests -m 'not slow'"` for all but the slow
#   tools/second_stack.sh --check                                        only say whether it can be made here
#
#   --cache FOLDER               where the root is kept between runs (default: .tools/debian13; 5 GB)
#   MORPH_DEBIAN_MIRROR=URL      where Debian comes from (default: this machine's own Debian source, else deb.debian.org)
#
# Ends as the tests do, or with 77 and the reason in its last line where no such root can be made. Needs root.
#
# Whatever is mounted is mounted in a mount namespace of its own, whose processes live in a PID namespace of their own and
# die with this script, however it ends: the kernel then drops the mounts, and no trap has to run for it.
set -euo pipefail
cd "$(dirname "$0")/.."

SUITE=trixie
PACKAGES=ca-certificates,g++,git,make,python3,python3-dev,python3-pip,python3-venv
TESTS="tests/core tests/components tests/e2e/test_digits_pipeline.py \
tests/pipelines/kubeflow/test_compiler.py tests/pipelines/kubeflow/test_platform.py"
# The settings with which this machine reaches its package index; they name no path but those of certificates.
SETTINGS="http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY PIP_INDEX_URL
  PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT PIP_RETRIES UV_DEFAULT_INDEX UV_INDEX UV_INDEX_URL
  UV_EXTRA_INDEX_URL UV_INSECURE_HOST UV_HTTP_TIMEOUT CI"
BUNDLE=/etc/ssl/certs/ca-certificates.crt

say() { printf 'second stack: %s\n' "$*" >&2; }
cannot() { say "NOT RUN: it cannot be made here: $*"; exit 77; }
namespaces() { setpriv --pdeathsig KILL -- unshare --mount --pid --fork --kill-child --mount-proc -- "$@"; }

check() {
  [ "$(uname -s) $(uname -m)" = "Linux x86_64" ] || cannot "this is $(uname -s) on $(uname -m), and TFX's wheels are for Linux on x86_64 only."
  [ "$(id -u)" = 0 ] || cannot "a Debian root can be made by root only. Run it with sudo, or on Debian 13 or Ubuntu 24.04, where \`make test\` takes TFX 1.21 itself."
  command -v debootstrap >/dev/null || cannot "debootstrap is missing. Install it: apt-get install debootstrap"
  command -v git >/dev/null || cannot "git is missing, which lists the files to copy. Install it: apt-get install git"
  namespaces true 2>/dev/null || cannot "this machine does not let root make a mount namespace (\`unshare --mount --pid\`), as in a container without CAP_SYS_ADMIN."
}

# Every URL from which this machine's apt takes its own release, and Debian's default: third parties' may be among them.
# A machine has sources in the one form, in the other, or in both.
mirrors() {
  if [ -n "${MORPH_DEBIAN_MIRROR:-}" ]; then echo "$MORPH_DEBIAN_MIRROR"; return; fi
  local codename
  codename=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}") || codename=
  if [ -n "$codename" ]; then
    { cat /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } | awk -v suite="$codename" '
      function end() { if (wanted) print uri; uri = ""; wanted = 0 }
      /^[ \t]*$/ { end() }
      tolower($1) == "uris:" { uri = $2 }
      tolower($1) == "suites:" { for (i = 2; i <= NF; i++) if ($i == suite) wanted = 1 }
      END { end() }'
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } | sed -nE 's/^deb +(\[[^]]*\] +)?//p' |
      awk -v suite="$codename" '$2 == suite { print $1 }'
  fi
  echo http://deb.debian.org/debian
}

make_root() {
  local mirror log=$cache/debootstrap.log
  rm -rf "$root" "$root.partial"
  : > "$log"
  # apt may have a proxy of its own, of which debootstrap would not know.
  if [ -z "${http_proxy:-}" ] && command -v apt-config >/dev/null; then
    http_proxy=$(apt-config dump --format %v Acquire::http::Proxy)
    if [ -n "$http_proxy" ]; then export http_proxy; fi
  fi
  while read -r mirror; do
    say "making a Debian 13 root in $root from $mirror"
    if debootstrap --variant=minbase --force-check-gpg --include=$PACKAGES $SUITE "$root.partial" "$mirror" </dev/null >> "$log" 2>&1; then
      mv "$root.partial" "$root"
      return
    fi
    rm -rf "$root.partial"
  done < <(mirrors | awk '!seen[$0]++')
  tail -n 5 "$log" >&2
  cannot "debootstrap could not make a Debian 13 root; the end of $log is above. Another mirror can be named with MORPH_DEBIAN_MIRROR."
}

# show FILE AS: lets the root see a file of this machine, as it is and without a copy that stays.
show() {
  mkdir -p "$(dirname "$root$2")"
  [ -e "$root$2" ] || : > "$root$2"
  mount --bind "$1" "$root$2"
}

furnish() {
  local file
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs tmpfs "$root/dev/shm"
  for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do if [ -e "$file" ]; then show "$file" "$file"; fi; done
  for file in "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
    if [ -f "$file" ]; then show "$file" /root/.config/pip/pip.conf; break; fi
  done
  for file in "${UV_CONFIG_FILE:-}" "$HOME/.config/uv/uv.toml" /etc/uv/uv.toml; do
    if [ -f "$file" ]; then show "$file" /root/.config/uv/uv.toml; break; fi
  done
  for file in "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}" $BUNDLE /etc/pki/tls/certs/ca-bundle.crt; do
    if [ -f "$file" ]; then show "$file" $BUNDLE; break; fi
  done
}

# The files of the checkout as a fresh clone with your changes would hold them; the root's own .venv stays.
copy_sources() {
  local file
  mkdir -p "$sources"
  find "$sources" -mindepth 1 -maxdepth 1 ! -name .venv ! -name .tools -exec rm -rf {} +
  git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ] || [ -L "$file" ]; then printf '%s\0' "$file"; fi; done |
    tar --create --null --files-from=- | tar --extract --directory "$sources"
}

inside() {   # runs in the namespaces
  root=$cache/root sources=$root/src/morph-tfx
  [ -d "$root" ] || make_root
  furnish
  copy_sources
  say "a Debian 13 root stands after $SECONDS s; setting up and testing: $*"
  local name
  for name in $(compgen -e); do
    case " ${SETTINGS//$'\n'/ } " in *" $name "*) ;; *) unset "$name" ;; esac
  done
  export HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  export PIP_CERT=$BUNDLE SSL_CERT_FILE=$BUNDLE REQUESTS_CA_BUNDLE=$BUNDLE
  chroot "$root" /bin/bash -c 'cd /src/morph-tfx && make test ARGS="$1"' second_stack "$*"
}

cache=.tools/debian13
if [ "${1:-}" = --inside ]; then cache=$2; shift 2; inside "$@"; exit; fi
while [ $# -gt 0 ]; do
  case $1 in
    --check) check; say "can be made here"; exit 0 ;;
    --cache) [ -n "${2:-}" ] || { say "--cache needs a folder"; exit 2; }; cache=$2; shift 2 ;;
    --) shift; break ;;
    *) say "unknown argument '$1'. Usage: tools/second_stack.sh [--cache FOLDER] [-- ARGUMENTS FOR PYTEST], or --check"; exit 2 ;;
  esac
done
[ $# -gt 0 ] || set -- "$TESTS"

check
mkdir -p "$cache"
cache=$(realpath "$cache")
exec 9> "$cache/lock"
flock --nonblock 9 || { say "another run uses $cache: waiting for it"; flock 9; }
status=0
namespaces bash tools/second_stack.sh --inside "$cache" "$@" || status=$?
case $status in
  0) say "passed after $(((SECONDS + 30) / 60)) min" ;;
  77) ;;   # the reason has been said
  *) say "FAILED ($status) after $(((SECONDS + 30) / 60)) min" ;;
esac
exit $status
