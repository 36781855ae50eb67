#!/usr/bin/env bash
# Sets everything up, then runs the linters and the tests: all but the slow ones (about 20 minutes on 2 cores), only
# tests/unit (seconds, once everything is installed), also what takes long, downloads a lot or needs root (100 minutes).
# Other words go to pytest.
#
#     ./run_tests.sh
#     ./run_tests.sh --quick
#     ./run_tests.sh --all
#     ./run_tests.sh -k demo
#
# Needs Python 3.11 to 3.13 and the internet to install packages, into .venv and beside it. Where there is a Python 3.8
# too, the package sets of the Jetson images are tried with it. With --all, as root on Debian with buildah, debootstrap
# and qemu-user-static, the images are built and a Raspberry Pi is emulated; with debootstrap, dpkg-dev, rsync and
# systemd-container, virtual boards boot.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

run=default
case "${1:-}" in
    -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --quick | --all) run=${1#--}; shift ;;
esac

./setup_venv.sh requirements_pytorch.txt requirements_tf.txt requirements_fleet.txt requirements_engine.txt tests/requirements.txt
bin=$PWD/.venv/bin

# Makes the virtual environment $1 from the requirement file $2, with the Python $3.
setup_other() {
    cat "$2" base_images/*/requirements.txt | cmp -s - "$1/installed" && return
    echo "installing $2 into $1"
    "$bin/uv" venv --quiet --clear --python "$3" "$1"
    "$bin/uv" pip install --quiet --python "$1/bin/python" -r "$2"
    cat "$2" base_images/*/requirements.txt > "$1/installed"
}

echo "== linters"
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/lint-imports" --no-cache
"$bin/shellcheck" ./*.sh ./*/*.sh .ci/run
"$bin/hadolint" base_images/*/Dockerfile
[ "$run" = quick ] || PATH="$bin:$PATH" "$bin/ansible-lint" --offline --profile production fleet # half a minute
"$bin/codespell" --skip "$(sed 's|/$||' .gitignore | paste -s -d , -)" # not by git: this may be an unpacked archive

echo "== tests"
if [ "$run" = quick ]; then
    exec "$bin/python" -m pytest --quiet --numprocesses 2 tests/unit "$@"
fi
py38=
for candidate in python3.8 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.8.*/bin/python3.8; do
    "$candidate" -c '' 2>/dev/null && py38=$candidate && break
done
if [ -n "$py38" ]; then
    setup_other .venv-py38-tf tests/requirements_py38_tf.txt "$py38"
    [ "$run" != all ] || setup_other .venv-py38-pytorch tests/requirements_py38_pytorch.txt "$py38"
else
    echo "SKIPPED: there is no Python 3.8 here to try the package sets of the Jetson images with"
fi
if [ "$run" = all ]; then
    setup_other .venv-flower-1.25 tests/requirements_flower_1_25.txt "$bin/python"
    set -- --all "$@"
else
    set -- --numprocesses 2 --dist loadfile "$@" # two files at a time: much of the time is waiting
fi
PATH="$bin:$PATH" "$bin/python" -m pytest "$@"
