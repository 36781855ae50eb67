#!/usr/bin/env bash
# Makes the virtual environment .venv in this folder and installs requirement files into it.
#
#     ./setup_venv.sh requirements_pytorch.txt
#     ./setup_venv.sh requirements_pytorch.txt requirements_tf.txt
#
# Needs a 64-bit Python from 3.9 to 3.13 and, the first time, the internet. If the files have not changed, it does
# nothing. To choose the Python, put PYTHON=/path/to/python3 before the command. A .venv is deleted and made again,
# unless this script finished it for this folder, Python and machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
case "${1:-}" in
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    "" | -*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
stop() { echo "setup_venv.sh: $1" >&2; exit 1; }

# Describes the Python $1, such as "64-bit Python 3.11 on aarch64"; fails if it does not run.
describe() {
    "$1" -c 'import platform, sys; bits = 64 if sys.maxsize > 2**32 else 32
print("%d-bit Python %d.%d on %s" % ((bits,) + sys.version_info[:2] + (platform.machine(),)))' 2> /dev/null
}
suits() { [[ $(describe "$1") =~ ^64-bit\ Python\ 3\.(9|1[0-3])\  ]]; }
for_here() { echo "$(describe .venv/bin/python) in $(pwd -P)"; }

find_python() {
    local found='' is candidates=(python3 python3.13 python3.12 python3.11 python3.10 python3.9)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for python in "${candidates[@]}"; do
        ! suits "$python" || return 0
        ! is=$(describe "$python") || found+="${found:+, }$is ($python)"
    done
    found="needs a 64-bit Python from 3.9 to 3.13, but found ${found:-no ${PYTHON:-python3}}"
    [[ $found != *32-bit\ Python* ]] || stop "$found
PyTorch and TensorFlow exist only for 64-bit systems: install such a system (README.md, A Raspberry Pi)."
    stop "$found
Install one of these: python3.13 and python3.13-venv with apt, python3.13 with dnf, python@3.13 with brew, or anywhere
with uv (https://docs.astral.sh/uv): uv python install 3.13. Then: PYTHON=python3.13 ./setup_venv.sh $*"
}

if suits .venv/bin/python && [ "$(for_here)" = "$(cat .venv/installed/for 2> /dev/null)" ]; then
    changed=
    for file in "$@"; do cmp -s "$file" ".venv/installed/${file##*/}" || changed=yes; done
    [ -n "$changed" ] || exit 0
else
    PATH=${PATH//"$(pwd -P)/.venv/bin:"/} # where .venv is activated, python3 is the one in there
    find_python "$@"
    [ ! -e .venv ] || echo "setup_venv.sh: .venv is unfinished, damaged or from elsewhere: recreating it"
    rm -rf .venv
    "$python" -m venv .venv ||
        stop "$python cannot make virtual environments. On Debian, Ubuntu, Raspberry Pi OS: sudo apt install python3-venv"
    mkdir .venv/installed
fi

echo "installing $* into .venv (a few hundred megabytes, more on x86_64 Linux)"
# uv is several times faster, but does not read pip's settings, such as a company's package index or certificate.
pip=(.venv/bin/python -m pip install --no-user --disable-pip-version-check) installer=("${pip[@]}") quiet=--quiet
[ ! -t 1 ] || quiet=
if [ -z "$(.venv/bin/python -m pip config list 2>&1)${REQUESTS_CA_BUNDLE:-}${CURL_CA_BUNDLE:-}" ]; then
    export PATH="$PWD/.venv/bin:$PATH" UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
    uv --version &> /dev/null || "${pip[@]}" --quiet uv
    installer=(uv pip install --python .venv/bin/python)
fi
rm -rf .venv/unfinished
mv .venv/installed .venv/unfinished # so that .venv counts as unfinished, however this ends
touch .venv/unfinished
"${installer[@]}" ${quiet:+"$quiet"} "${@/#/-r}" || { # without internet, for example, when nothing has changed yet
    [ "$(echo .venv/lib/python3*/site-packages)" -nt .venv/unfinished ] || mv .venv/unfinished .venv/installed
    stop "could not install $*: see above"
}
cp "$@" .venv/unfinished/
for_here > .venv/unfinished/for
mv .venv/unfinished .venv/installed
