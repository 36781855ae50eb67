"""build_jetson_flower_client.sh and the images that it builds.

The script runs with a stand-in for docker that writes down what it is asked; with --all, as root on Debian, it builds
both images for real, with buildah on stand-ins for NVIDIA's images, and clients run in them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PY38_PYTORCH, PY38_TF, copy_sample, needs_py38_pytorch, needs_py38_tf
from processes import DEADLINE, ROOT

SCRIPT = "build_jetson_flower_client.sh"
FRAMEWORKS = ("pytorch", "tensorflow")
SITE_PACKAGES = PY38_PYTORCH.parent.parent / "lib/python3.8/site-packages"  # where torch is
L4T_PYTORCH = "nvcr.io/nvidia/l4t-pytorch:r35.2.1-pth2.0-py3"
L4T_TENSORFLOW = "nvcr.io/nvidia/l4t-tensorflow:r35.3.1-tf2.11-py3"

# What is printed to stderr first, and the exit code, by the words given.
MISTAKES = {
    "": (2, "--pytorch or --tensorflow is missing"),
    "--pytorch --cache": (2, "unknown argument: '--cache'"),
    "--pytorch --tensorflow": (2, "give either --pytorch or --tensorflow, once"),
    "--pytorch --l4t --no-cache": (2, "--l4t needs a value"),
    "--pytorch --l4t 35": (2, "'35' is not an L4T release such as 35.4.1"),
    "--pytorch --l4t 35.4.1 --base-image x": (2, "give either --base-image or --l4t"),
    "--pytorch --l4t 32.7.1": (1, "L4T 32.7.1 (JetPack 4) has Python 3.6, but Flower needs 3.8"),
    "--tensorflow --l4t 36.4.3": (1, "this script knows no tensorflow image for L4T 36.4.3"),
    "--pytorch --l4t 38.2": (1, "this script knows no pytorch image for L4T 38.2"),
}

# The base image, and what the words add to docker's command.
ORDERS = {
    "--pytorch --l4t 35.4.1": (L4T_PYTORCH, [], "flower_client"),
    "--tensorflow --l4t 35.5.0": (L4T_TENSORFLOW, [], "flower_client"),
    "--pytorch --l4t 36.3.0": ("dustynv/l4t-pytorch:r36.2.0", [], "flower_client"),
    "--pytorch --l4t 36.10": ("dustynv/l4t-pytorch:r36.4.0", [], "flower_client"),
    "--tensorflow --l4t 36.2.0": ("dustynv/l4t-tensorflow:tf2-r36.2.0", [], "flower_client"),
    "--tensorflow --base-image my/own:image --tag mine:1 --no-cache": ("my/own:image", ["--no-cache"], "mine:1"),
}

# The first line of /etc/nv_tegra_release, as found on real devices; the exit code and what is printed.
DEVICES = {
    "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64": (0, f"BASE_IMAGE={L4T_PYTORCH} "),
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64": (0, "l4t-pytorch:r36.4.0 "),
    "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64": (1, "L4T 32.7.1 (JetPack 4) has"),
    "something else": (1, "this is not a Jetson"),
}

needs_root = pytest.mark.skipif(not shutil.which("unshare") or os.geteuid() != 0, reason="needs root and unshare")
missing = [program for program in ("buildah", "debootstrap") if not shutil.which(program)]
needs_buildah = pytest.mark.skipif(bool(missing), reason=f"missing: {' '.join(missing)} (Debian's packages)")


@pytest.fixture
def programs(tmp_path) -> Path:
    """A folder for programs that the script finds before all others; `docker` there writes down its arguments."""
    folder = tmp_path / "programs"
    folder.mkdir()
    write_program(folder / "docker", f'printf "%s\\n" "$@" > {tmp_path}/asked; exit "${{DOCKER_EXITS_WITH:-0}}"')
    return folder


def write_program(path: Path, commands: str) -> None:
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)


def build(*words: str, programs: Path, prefix=(), **environment) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **environment}
    command = [*prefix, str(ROOT / SCRIPT), *words]  # in any folder
    return subprocess.run(command, cwd=programs, env=environment, capture_output=True, text=True, timeout=DEADLINE)


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_end_with_a_sentence(words, programs, tmp_path):
    exit_code, message = MISTAKES[words]
    result = build(*words.split(), programs=programs)
    assert result.returncode == exit_code and result.stdout == ""
    assert result.stderr.startswith(f"{SCRIPT}: {message}")
    assert ("./build_jetson_flower_client.sh --pytorch" in result.stderr) == (exit_code == 2)  # the usage
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("words", ORDERS)
def test_orders_reach_docker(words, programs, tmp_path):
    base_image, options, tag = ORDERS[words]
    folder = ROOT / "base_images" / ("pytorch" if "--pytorch" in words else "tensorflow")
    command = ["build", *options, "--build-arg", f"BASE_IMAGE={base_image}", "--tag", tag, str(folder)]
    dry_run = build(*words.split(), "--dry-run", programs=programs)
    assert dry_run.returncode == 0 and dry_run.stdout.split() == ["docker", *command]
    assert not (tmp_path / "asked").exists()
    result = build(*words.split(), programs=programs)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "asked").read_text().splitlines() == command
    assert f'docker run -it --rm --runtime nvidia -v "$(pwd)":/client {tag}' in result.stdout
    failed = build(*words.split(), programs=programs, DOCKER_EXITS_WITH="37")
    assert failed.returncode == 37 and "built" not in failed.stdout


def test_no_docker(programs):
    (programs / "docker").unlink()
    for program in ("bash", "dirname"):
        (programs / program).symlink_to(shutil.which(program))
    result = build("--pytorch", "--l4t", "35.4.1", programs=programs, PATH=str(programs))
    assert result.returncode == 1 and result.stderr.startswith(f"{SCRIPT}: docker is not installed")


@pytest.mark.skipif(Path("/etc/nv_tegra_release").exists(), reason="this is a Jetson")
def test_device_known_to_dpkg(programs):
    write_program(programs / "dpkg-query", '[ "$4" = nvidia-l4t-core ] && printf 36.4.3-20250107174145')
    assert "dustynv/l4t-pytorch:r36.4.0" in build("--pytorch", "--dry-run", programs=programs).stdout


@needs_root
@pytest.mark.parametrize("release", DEVICES, ids=lambda release: release[:5])
def test_device_known_to_its_release_file(release, programs, tmp_path):
    exit_code, words = DEVICES[release]
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(f"{release}\n# KERNEL_VARIANT: oot\n")
    with_its_etc = ("unshare", "--mount", "sh", "-c", f'mount --bind {tmp_path}/etc /etc && exec "$0" "$@"')
    result = build("--pytorch", "--dry-run", programs=programs, prefix=with_its_etc)
    assert result.returncode == exit_code
    assert words in (result.stdout if exit_code == 0 else result.stderr)


# From here on, images are built.


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """A store of images with stand-ins for NVIDIA's; returns what to add to the environment to use it."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "storage.conf").write_text(f'[storage]\ndriver=""\ngraphroot="{folder}/images"\nrunroot="{folder}/run"\n')
    (folder / "programs").mkdir()
    write_program(
        folder / "programs/docker",
        f'shift  # "build"\nexec buildah bud --format docker --volume {SITE_PACKAGES}:/opt/torch:ro "$@"',
    )
    environment = {
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "BUILDAH_ISOLATION": "chroot",
        "PATH": f"{folder}/programs{os.pathsep}{os.environ['PATH']}",
    }
    python = subprocess.check_output([PY38_TF, "-c", "import sys; print(sys.base_prefix)"], text=True).strip()
    run(environment, "tests/l4t_images.sh", python, SITE_PACKAGES)
    yield environment
    run(environment, "buildah", "rm", "--all")
    run(environment, "buildah", "rmi", "--all", "--force")


def run(environment: dict[str, str], *command: object, check: bool = True) -> subprocess.CompletedProcess:
    words, pipe = [str(word) for word in command], subprocess.PIPE
    environment, errors = {**os.environ, **environment}, pipe if check else subprocess.STDOUT
    result = subprocess.run(words, cwd=ROOT, env=environment, stdout=pipe, stderr=errors, text=True, timeout=900)
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def images(buildah) -> dict[str, str]:
    """Both images, built by the script; their names by framework."""
    for framework in FRAMEWORKS:
        words = (f"--{framework}", "--base-image", f"localhost/l4t-{framework}", "--tag", f"flower_client:{framework}")
        run(buildah, f"./{SCRIPT}", *words)
    return {framework: f"localhost/flower_client:{framework}" for framework in FRAMEWORKS}


def container(buildah, image: str) -> str:
    return run(buildah, "buildah", "from", "--pull-never", image).stdout.strip()


def files_of(buildah, image: str) -> Path:
    """Where the files of a new container from `image` are."""
    return Path(run(buildah, "buildah", "mount", container(buildah, image)).stdout.strip())


@pytest.mark.slow
@needs_root
@needs_buildah
@needs_py38_tf
@needs_py38_pytorch
class TestImages:
    @pytest.mark.parametrize("framework", FRAMEWORKS)
    def test_what_the_build_adds(self, framework, buildah, images):
        before, after = files_of(buildah, f"localhost/l4t-{framework}"), files_of(buildah, images[framework])
        megabytes = [int(subprocess.check_output(["du", "-sm", path]).split()[0]) for path in (before, after)]
        assert megabytes[1] - megabytes[0] < 400
        assert not list(after.glob("root/.cache/pip")) and not list(after.glob("tmp/*"))
        # nothing of the base image is gone or other than before
        compared = subprocess.run(
            ["diff", "-rq", "--no-dereference", before / "usr", after / "usr"], capture_output=True, text=True
        ).stdout.splitlines()
        assert [line for line in compared if "__pycache__" not in line] == []

    @pytest.mark.parametrize("framework", FRAMEWORKS)
    def test_federation(self, framework, buildah, images, start, address, results, tmp_path):
        """Two clients inside the image, trained for real, and a server on the newest Flower outside."""
        data = copy_sample(tmp_path / "data")
        server = start("server.py", "--server_address", address, "--rounds", 2, "--results_dir", results)
        script = f"client_{'tf' if framework == 'tensorflow' else framework}.py"
        volumes = [f"{ROOT}:/client", f"{data}:/data", f"{SITE_PACKAGES}:/opt/torch:ro"]
        flags = ("--mnist", "--data_dir", "/data", "--server_address", address, "--num_clients", 2, "--retry_for", 60)
        clients = []
        for cid in (0, 1):
            words = *(f"--volume={volume}" for volume in volumes), container(buildah, images[framework]), "--"
            clients.append(start("run", *words, "python3", script, "--cid", cid, *flags, python="buildah", env=buildah))
        assert server.exit_code() == 0
        for client in clients:
            assert client.exit_code() == 0, client.output
        for number in (1, 2):
            assert f"round {number}: 2 results and 0 failures" in server.output

    @pytest.mark.parametrize(("framework", "package"), [("pytorch", "torch==2.0.0"), ("tensorflow", "numpy==1.23.5")])
    def test_a_package_of_the_base_image_must_stay(self, framework, package, buildah, tmp_path):
        """A requirement for another version ends the build, with a pip that keeps to no constraint as well."""
        result = build_changed(buildah, framework, tmp_path / "1", requirement=package)
        assert result.returncode != 0
        assert f"The user requested (constraint) {package.split('==')[0]}==" in result.stdout
        constraint = "--constraint base_image.txt "
        result = build_changed(buildah, framework, tmp_path / "2", requirement="numpy==1.23.5", cut=constraint)
        assert result.returncode != 0
        assert "the build changed packages of the base image" in result.stdout and "numpy==1.23.5" in result.stdout


def build_changed(buildah, framework: str, folder: Path, requirement: str, cut: str = ""):
    """Build with one more requirement, and without the words `cut` in the Dockerfile."""
    shutil.copytree(ROOT / "base_images", folder / "base_images")
    shutil.copy(ROOT / SCRIPT, folder)
    with (folder / "base_images" / framework / "requirements.txt").open("a") as file:
        file.write(f"{requirement}\n")
    dockerfile = folder / "base_images" / framework / "Dockerfile"
    assert cut in dockerfile.read_text()
    dockerfile.write_text(dockerfile.read_text().replace(cut, ""))
    words = (f"--{framework}", "--base-image", f"localhost/l4t-{framework}", "--tag", "changed")
    return run(buildah, folder / SCRIPT, *words, check=False)
