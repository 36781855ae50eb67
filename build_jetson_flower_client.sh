#!/usr/bin/env bash
# Builds the Docker image flower_client, in which a client trains on the GPU of an NVIDIA Jetson: client_pytorch.py or
# client_tf.py.
#
#     ./build_jetson_flower_client.sh --pytorch
#     ./build_jetson_flower_client.sh --tensorflow
#
#     --no-cache            build all steps again
#     --base-image IMAGE    build on this image instead of the one that fits the device
#     --l4t VERSION         build for this L4T release, such as 35.4.1, instead of the device's
#     --tag NAME            the name of the image (flower_client)
#     --dry-run             only print the docker command
#
# Then, in this folder:
#
#     docker run -it --rm --runtime nvidia -v "$(pwd)":/client flower_client
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]##*/}"; }
stop() { echo "build_jetson_flower_client.sh: $1" >&2; exit 1; }
wrong_words() { echo "build_jetson_flower_client.sh: $1" >&2; usage >&2; exit 2; }
value() { if [[ ${2:--} == -* ]]; then wrong_words "$1 needs a value"; else echo "$2"; fi; }

framework='' base_image='' l4t='' tag=flower_client no_cache='' dry_run=''
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help) usage; exit 0 ;;
        --pytorch | --tensorflow)
            [ -z "$framework" ] || wrong_words "give either --pytorch or --tensorflow, once"
            framework=${1#--} ;;
        --base-image) base_image=$(value "$@"); shift ;;
        --l4t) l4t=$(value "$@"); shift ;;
        --tag) tag=$(value "$@"); shift ;;
        --no-cache) no_cache=yes ;;
        --dry-run) dry_run=yes ;;
        *) wrong_words "unknown argument: '$1'" ;;
    esac
    shift
done
[ -n "$framework" ] || wrong_words "--pytorch or --tensorflow is missing"
[ -z "$base_image" ] || [ -z "$l4t" ] || wrong_words "give either --base-image or --l4t"
[[ -z $l4t || $l4t =~ ^[0-9]+\.[0-9]+(\.[0-9]+)*$ ]] || wrong_words "'$l4t' is not an L4T release such as 35.4.1"

# The L4T release of this device, such as 35.4.1; nothing on a machine that is not a Jetson.
l4t_of_this_device() {
    if [ -r /etc/nv_tegra_release ]; then
        sed -n '1s/^# R\([0-9]*\) .*REVISION: \([0-9.]*\).*/\1.\2/p' /etc/nv_tegra_release # "# R35 (release), REVISION: 4.1, ..."
    else
        dpkg-query --show --showformat '${Version}' nvidia-l4t-core 2> /dev/null | sed 's/-.*//' # 36.4.3-20250107174145
    fi
}

# A base image runs on all releases of its line; 36.4 and later are a separate line.
image_for() {
    case "$framework-$l4t" in
        pytorch-35.*) echo nvcr.io/nvidia/l4t-pytorch:r35.2.1-pth2.0-py3 ;;
        tensorflow-35.*) echo nvcr.io/nvidia/l4t-tensorflow:r35.3.1-tf2.11-py3 ;;
        pytorch-36.[0-3] | pytorch-36.[0-3].*) echo dustynv/l4t-pytorch:r36.2.0 ;;
        tensorflow-36.[0-3] | tensorflow-36.[0-3].*) echo dustynv/l4t-tensorflow:tf2-r36.2.0 ;;
        pytorch-36.*) echo dustynv/l4t-pytorch:r36.4.0 ;;
        *-32.*) stop "L4T $l4t (JetPack 4) has Python 3.6, but Flower needs 3.8: there is no base image.
A Xavier can run JetPack 5. A Nano, TX1 or TX2 can still train on its CPU: see base_images/README.md." ;;
        *) stop "this script knows no $framework image for L4T $l4t.
Give one with --base-image; base_images/README.md says what it must contain." ;;
    esac
}

if [ -z "$base_image" ]; then
    l4t=${l4t:-$(l4t_of_this_device || true)}
    [ -n "$l4t" ] || stop "this is not a Jetson, according to /etc/nv_tegra_release and dpkg.
Choose what to build for with --l4t, for example --l4t 35.4.1, or what to build on with --base-image."
    base_image=$(image_for)
fi

build=(docker build ${no_cache:+--no-cache} --build-arg "BASE_IMAGE=$base_image" --tag "$tag" "$PWD/base_images/$framework")
if [ -n "$dry_run" ]; then
    printf '%q ' "${build[@]}"
    echo
else
    command -v docker > /dev/null || stop "docker is not installed; on a Jetson, it comes with JetPack: sudo apt install nvidia-jetpack"
    "${build[@]}"
    echo "built $tag; to use it in this folder: docker run -it --rm --runtime nvidia -v \"\$(pwd)\":/client $tag"
fi
