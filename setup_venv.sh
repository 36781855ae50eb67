#!/usr/bin/env bash
# Makes the virtual environment .venv in this folder and installs requirement files into it.
#
#     ./setup_venv.sh requirements_pytorch.txt [more files ...]
#     ./setup_venv.sh requirements_tf.txt
#
# Needs Python 3.9 to 3.13 and, the first time, the internet; with the files unchanged it has nothing to do.
# PYTHON=/path/to/python3 chooses the Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

case "${1:-}" in
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    "") sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10 python3.9; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "setup_venv.sh: no Python from 3.9 to 3.13 found" >&2
    return 1
}

outdated=()
for file in "$@"; do
    cmp -s "$file" ".venv/installed/${file##*/}" || outdated+=("$file")
done
[ ${#outdated[@]} -gt 0 ] || exit 0

if ! [ -x .venv/bin/python ]; then
    python=$(find_python)
    "$python" -m venv .venv || {
        echo "setup_venv.sh: on Debian, Ubuntu and Raspberry Pi OS: sudo apt install python3-venv" >&2
        exit 1
    }
fi
echo "installing ${outdated[*]} into .venv (a few hundred megabytes, more on x86_64 Linux)"
# uv resolves and downloads in parallel, several times faster than pip
.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
# shellcheck disable=SC2068  # each file after an -r of its own
.venv/bin/uv pip install --quiet --python .venv/bin/python ${@/#/-r }
mkdir -p .venv/installed
cp "$@" .venv/installed/
