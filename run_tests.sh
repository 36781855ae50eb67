#!/usr/bin/env bash
# Installs everything, then runs the linters and the tests: all but the slow ones (about 8 minutes on 2 cores). --quick
# runs only tests/unit (seconds, once everything is installed); --all also runs tests that take long, download a lot or
# need root (100 minutes). Other arguments go to pytest.
#
#     ./run_tests.sh
#     ./run_tests.sh --quick
#     ./run_tests.sh --all
#     ./run_tests.sh -k demo
#
# Needs Python 3.11 to 3.13 and the internet to install packages. With --all, it also installs the packages of the
# Jetson images, if there is a Python 3.8. As root on Debian, it builds these images and emulates a Raspberry Pi
# (buildah, debootstrap, qemu-user-static), and boots virtual boards (debootstrap, dpkg-dev, rsync, systemd-container).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

run=default
case "${1:-}" in
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --quick | --all) run=${1#--}; shift ;;
esac

./setup_venv.sh requirements_{pytorch,tf,onnx,fleet,engine}.txt tests/requirements.txt
export PATH="$PWD/.venv/bin:$PATH"

echo "== linters"
linters=()
lint() { "$@" & linters+=($!); } # side by side
lint mypy
lint ruff check .
lint ruff format --check .
lint lint-imports --no-cache
lint shellcheck ./*.sh ./*/*.sh .ci/run
lint hadolint base_images/*/Dockerfile
lint codespell --skip "$(sed 's|^/|./|; s|/$||' .gitignore | paste -s -d , -)" # not by git: this may be an unpacked archive
playbooks=$(find fleet -name '*.yml' -exec cksum {} + | sort)
if [ "$run" != quick ] && [ "$playbooks" != "$(cat .venv/linted 2> /dev/null)" ]; then # it takes half a minute
    lint ansible-lint --offline --profile production fleet
fi
for linter in "${linters[@]}"; do wait "$linter"; done
[ "$run" = quick ] || echo "$playbooks" > .venv/linted

echo "== tests"
# Makes the virtual environment $1 from the requirement file $2, with the Python $3.
setup_other() {
    cat "$2" base_images/*/requirements.txt | cmp -s - "$1/installed" && return
    echo "installing $2 into $1"
    uv venv --quiet --clear --python "$3" "$1"
    uv pip install --quiet --python "$1/bin/python" -r "$2"
    cat "$2" base_images/*/requirements.txt > "$1/installed"
}
case "$run" in
    quick) exec python -m pytest --quiet --numprocesses 2 tests/unit "$@" ;;
    default) exec python -m pytest --numprocesses 3 --dist loadgroup "$@" ;; # much of the time is waiting
esac
setup_other .venv-flower-1.25 tests/requirements_flower_1_25.txt .venv/bin/python
for python in python3.8 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.8.*/bin/python3.8; do
    "$python" -c '' 2> /dev/null || continue
    setup_other .venv-py38-tf tests/requirements_py38_tf.txt "$python"
    setup_other .venv-py38-pytorch tests/requirements_py38_pytorch.txt "$python"
    break
done
python -m pytest --all "$@"
