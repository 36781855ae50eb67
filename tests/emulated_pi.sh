#!/usr/bin/env bash
# An emulated Raspberry Pi takes part: arm64 Debian under qemu, with the packages that the requirement files give there.
#
#     tests/emulated_pi.sh FOLDER PYTHON
#
# For each framework and processor (Cortex-A53: Pi 3 and Zero 2; Cortex-A72: Pi 4), one round of MNIST on 90 images with
# a server that PYTHON runs outside. Then the PyTorch that the requirements avoid has to die on a Cortex-A53. FOLDER takes
# 3 GB. Needs root on Debian, debootstrap, qemu-user-static, and uv on PATH; ends with 77 and a reason where it cannot run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
skip() { echo "cannot run here: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"
for program in debootstrap qemu-aarch64-static unshare uv; do
    command -v "$program" > /dev/null || skip "there is no $program"
done
[ -n "${IN_NAMESPACE:-}" ] || IN_NAMESPACE=yes exec unshare --mount "$PWD/tests/emulated_pi.sh" "$@" # its mounts end with it
folder=$1 python=$2 root=$1/root

formats=/proc/sys/fs/binfmt_misc
[ -e $formats/register ] || mount -t binfmt_misc binfmt_misc $formats || skip "the kernel has no binfmt_misc"
[ -e $formats/qemu-aarch64 ] || cat /usr/lib/binfmt.d/qemu-aarch64.conf > $formats/register || skip "cannot register qemu"

echo "== an arm64 Debian"
debootstrap --arch=arm64 --variant=minbase --include=python3 bookworm "$root" > "$folder/debootstrap.log"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
install_into() { # folder in the root file system, then what to install
    uv pip install --quiet --target "$root/$1" --python-platform aarch64-manylinux_2_28 --python-version 3.11 "${@:2}"
}
install_into pytorch -r requirements_pytorch.txt
install_into tf -r requirements_tf.txt
install_into onnx -r requirements_teach.txt # which has what client_onnx.py needs, too
install_into avoided --no-deps torch==2.10.0 # with the rest from pytorch/
mkdir "$root/client"
cp -r client_*.py teach.py federation backbone teach "$root/client"
"$python" -m federation.data --mnist --cid 0 --num_clients 50 --data_dir sample_data
mkdir -p "$root/client/data/mnist/50"
cp sample_data/mnist/50/0.npz "$root/client/data/mnist/50"

emulate() { # processor, packages, then the command
    chroot "$root" env -C /client "QEMU_CPU=$1" "PYTHONPATH=$2" HOME=/root python3 "${@:3}"
}
for framework in pytorch tf onnx; do
    for processor in cortex-a53 cortex-a72; do
        echo "== client_$framework.py on $processor"
        address=$(PYTHONPATH=tests "$python" -c 'import processes; print(processes.free_address())')
        timeout 900 "$python" server.py --rounds 1 --min_num_clients 1 --epochs 1 --server_address "$address" \
            --results_dir "$folder/$framework-$processor" &
        server=$!
        emulate "$processor" "/$framework" "client_$framework.py" --cid 0 --mnist --server_address "$address" \
            --retry_for 60
        wait "$server"
    done
done

echo "== teach.py on cortex-a53"
"$python" -c "from PIL import Image; Image.new('RGB', (640, 480), 'red').save('$root/client/1.png')"
mkdir -p "$root/client/camera" && mv "$root/client/1.png" "$root/client/camera"
address=$(PYTHONPATH=tests "$python" -c 'import processes; print(processes.free_address())')
emulate cortex-a53 /onnx teach.py --photos photos --camera camera --host 127.0.0.1 --port "${address#*:}" &
for _ in {1..300}; do
    sleep 1
    secret=$(cat "$root/client/photos/.secret" 2> /dev/null) || continue
    state=$("$python" -c "import urllib.request as u; print(u.urlopen('http://$address/state?secret=$secret').read())" 2> /dev/null) || continue
    [[ $state =~ \"fps\":0[,}] ]] || break
done
echo "it says $state"
pkill -P $!

echo "== the PyTorch that the requirements avoid"
step='import torch; x = torch.randn(8, 1, 28, 28); w = torch.randn(6, 1, 5, 5, requires_grad=True)
torch.nn.functional.conv2d(x, w).sum().backward(); print(torch.__version__, "works")'
emulate cortex-a53 /pytorch -c "$step"
code=0
emulate cortex-a53 /avoided:/pytorch -c "$step" || code=$?
[ "$code" = 132 ] || { echo "it should have died with an illegal instruction (132), not with $code"; exit 1; }
echo "it dies with an illegal instruction, as expected"
