#!/usr/bin/env bash
# Makes stand-ins for NVIDIA's base images: l4t-pytorch and l4t-tensorflow, Debian with Python 3.8, the pip of Ubuntu
# 20.04, and PyPI's builds of the frameworks under the versions that NVIDIA's have.
#
#     tests/l4t_images.sh PYTHON SITE_PACKAGES
#
# PYTHON is the folder of a Python 3.8. SITE_PACKAGES has torch and torchvision, which are gigabytes and not copied: run
# the container with --volume SITE_PACKAGES:/opt/torch. Needs root on Debian, buildah, debootstrap, and uv on PATH.
set -euo pipefail
python=$1 site_packages=$2

# Sets container and root, where its files are, to a new container made from the image $1.
open_container() {
    container=$(buildah from --pull-never "$1")
    root=$(buildah mount "$container")
    packages=$root/usr/local/lib/python3.8/site-packages
}

# Makes the image $1 out of the container.
commit_as() {
    buildah unmount "$container" > /dev/null
    buildah commit --quiet --rm "$container" "$1" > /dev/null
}

# Installs packages into the container.
install() { uv pip install --quiet --target "$packages" --python "$python/bin/python3.8" "$@"; }

# Has the package $1 say that it is version $2 of $3, and needs nothing.
rename() {
    local information=("$packages/$1"-*.dist-info)
    sed -i -e "s/^Name: .*/Name: $3/" -e "s/^Version: .*/Version: $2/" -e '/^Requires-Dist: /d' "${information[0]}/METADATA"
    mv "${information[0]}" "$packages/$3-$2.dist-info"
}

open_container scratch
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME") # this machine's, because PYTHON was built for it
debootstrap --variant=minbase --include=ca-certificates,libbz2-1.0,libffi8,liblzma5,libsqlite3-0,libssl3 \
    "$suite" "$root" > /dev/null
cp -a "$python/bin" "$python/lib" "$root/usr/local/"
rm -rf "$packages" "$root/usr/local/lib/python3.8/test" "$root"/usr/local/lib/python3.8/config-*
mkdir "$packages"
chroot "$root" ldconfig
# This machine's certificates, should it reach the package index through a proxy of its own.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$root/etc/pip.conf"
install pip==20.0.2
# Like Ubuntu's, a package that pip refuses to replace where it can: one that was installed by distutils.
mkdir "$packages/yaml"
echo "__version__ = '5.3.1'" > "$packages/yaml/__init__.py"
printf 'Metadata-Version: 1.1\nName: PyYAML\nVersion: 5.3.1\n' > "$packages/PyYAML-5.3.1.egg-info"
# Like some base images, an environment that sends pip to an index that is gone.
buildah config --env PIP_INDEX_URL=http://index.invalid/simple "$container"
commit_as l4t-base

open_container l4t-base
install numpy==1.24.4 pillow==9.4.0 requests==2.31.0 sympy==1.13.3 networkx==3.1 jinja2==3.1.6 filelock==3.16.1
for name in torch torchvision torchvision.libs torchgen nvidia triton; do
    ln -s "/opt/torch/$name" "$packages/$name"
done
cp -r "$site_packages"/torch-*.dist-info "$site_packages"/torchvision-*.dist-info "$packages"
rename torch 2.0.0a0+ec3941ad.nv23.02 torch
rename torchvision 0.14.1a0+5e8e2f1 torchvision
commit_as l4t-pytorch

open_container l4t-base
install --override <(echo protobuf==3.20.3) tensorflow-cpu==2.11.1 numpy==1.21.6
rename tensorflow_cpu 2.11.0+nv23.01 tensorflow
commit_as l4t-tensorflow
