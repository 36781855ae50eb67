#!/usr/bin/env bash
# Makes the virtual environment .venv in this folder and installs requirement files into it.
#
#     ./setup_venv.sh requirements_pytorch.txt
#     ./setup_venv.sh requirements_pytorch.txt requirements_tf.txt
#
# Needs a 64-bit Python from 3.9 to 3.13 and, the first time, the internet; with the files unchanged it has nothing to
# do. PYTHON=/path/to/python3 before it chooses the Python of a new .venv. One that does not work is made anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

case "${1:-}" in
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    "") sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

stop() { echo "setup_venv.sh: $1" >&2; exit 1; }

# What the Python $1 is, such as "64-bit Python 3.11"; fails if it does not run.
describe() {
    "$1" -c 'import sys; print("%d-bit Python %d.%d" % ((64 if sys.maxsize > 2**32 else 32,) + sys.version_info[:2]))' \
        2> /dev/null
}
suits() { [[ $(describe "$1") =~ ^64-bit\ Python\ 3\.(9|1[0-3])$ ]]; }

find_python() {
    local candidate is found=''
    local candidates=(python3 python3.13 python3.12 python3.11 python3.10 python3.9)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
        ! is=$(describe "$candidate") || found+="${found:+, }$is ($candidate)"
    done
    found="needs a 64-bit Python from 3.9 to 3.13, and there is ${found:-no ${PYTHON:-python3}}"
    [[ $found != *32-bit\ Python* ]] || stop "$found
PyTorch and TensorFlow exist for 64-bit systems only: install one of these (README.md, A Raspberry Pi)."
    stop "$found
Install one beside it: python3.13 and python3.13-venv with apt, python3.13 with dnf, python@3.13 with brew, or anywhere
with uv (https://docs.astral.sh/uv): uv python install 3.13. Then: PYTHON=python3.13 ./setup_venv.sh $*"
}

# Is all that was installed still there (an installation may have been broken off, a card may have lost files), for this
# Python, which the system may have replaced, for this processor and this folder?
has_packages() {
    .venv/bin/python -I -c '
import os, sys, sysconfig
from pathlib import Path
packages, suffix = Path(sysconfig.get_path("purelib")), sysconfig.get_config_var("EXT_SUFFIX")
in_place = packages.is_dir() and Path(sys.prefix).samefile(".venv")
records = [(info / "RECORD").read_text(encoding="utf-8") for info in packages.glob("*.dist-info")]
files = [line.rsplit(",", 2)[0].strip("\"") for record in records for line in record.splitlines()]
complete = all(os.path.exists(packages / file) for file in files if not file.endswith(".pyc"))
compiled = packages.glob("*/*.%s-*.so" % sys.implementation.cache_tag)
sys.exit(not (in_place and complete and all(path.name.endswith(suffix) for path in compiled)))'
}
has_pip() {
    .venv/bin/python -I -c 'import pip' || # uv leaves it out
        { grep '^uv = ' .venv/pyvenv.cfg && .venv/bin/python -m ensurepip --default-pip; }
}
can_be_activated() (
    set +eu
    # shellcheck source=/dev/null
    source .venv/bin/activate
    [ "$VIRTUAL_ENV" -ef .venv ]
)
works() {
    suits .venv/bin/python && { has_packages && can_be_activated && has_pip; } &> /dev/null
}

are_installed() {
    local file
    for file in "$@"; do
        cmp -s "$file" ".venv/installed/${file##*/}" || return
    done
}

if works; then
    ! are_installed "$@" || exit 0
else
    find_python "$@" > /dev/null
    [ ! -e .venv ] || echo "setup_venv.sh: .venv is damaged or was made elsewhere, and is made anew"
    rm -rf .venv
    python=$(find_python "$@") # again: if .venv is activated, python3 was the one in there
    "$python" -m venv .venv || {
        rm -rf .venv
        stop "$python cannot make virtual environments. On Debian, Ubuntu, Raspberry Pi OS: sudo apt install python3-venv"
    }
fi

# pip has settings, such as a company's index and certificate, that uv does not read; uv is several times faster.
has_pip_settings() { [ -n "$(.venv/bin/python -m pip config list 2>&1)${REQUESTS_CA_BUNDLE:-}${CURL_CA_BUNDLE:-}" ]; }
has_uv_settings() {
    [[ ${!UV_*} =~ INDEX|FIND_LINKS|CONFIG_FILE ]] ||
        grep -qs index "${XDG_CONFIG_HOME:-${HOME:-}/.config}/uv/uv.toml" /etc/uv/uv.toml
}
# Settings that say where to install are for other places than .venv.
run_pip() { .venv/bin/python -m pip install --quiet --no-user --target= --root=/ --prefix="$PWD/.venv" "$@"; }
echo "installing $* into .venv (a few hundred megabytes, more on x86_64 Linux)"
if has_uv_settings || ! has_pip_settings; then
    export PATH="$PWD/.venv/bin:$PATH" UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
    uv --version &> /dev/null || run_pip uv
    uv pip install --quiet --python .venv/bin/python "${@/#/-r}"
else
    run_pip "${@/#/-r}"
fi
mkdir -p .venv/installed
cp "$@" .venv/installed/
