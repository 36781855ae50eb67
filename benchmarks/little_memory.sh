#!/usr/bin/env bash
# Does the PyTorch client for MNIST get along with little memory? Three rounds in a memory cgroup, without swap.
#
#     sudo benchmarks/little_memory.sh 416
#     sudo benchmarks/little_memory.sh 416 .venv/bin/python
#
# The number is megabytes: a Raspberry Pi Zero 2 leaves about that many. The Python runs the client and should have the
# CPU build of PyTorch, as on a board: the CUDA build takes 280 MB more. What counts is what the kernel counts for such a
# group: the process and the files that it reads, which are not in memory at the start. Needs root, Linux, and .venv for
# the server.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
    [1-9]*) megabytes=$1 python=${2:-.venv/bin/python} ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

folder=$(mktemp -d)
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then # version 2
    group=/sys/fs/cgroup/little-memory-$$ limit=memory.max swap=memory.swap.max swap_limit=0 peak=memory.peak
else
    group=/sys/fs/cgroup/memory/little-memory-$$ limit=memory.limit_in_bytes swap=memory.memsw.limit_in_bytes
    swap_limit=$((megabytes << 20)) peak=memory.max_usage_in_bytes # version 1 limits memory and swap together
fi
mkdir "$group"
trap 'kill $(jobs -p) 2> /dev/null || true; wait; rmdir "$group"; rm -r "$folder"' EXIT
echo $((megabytes << 20)) > "$group/$limit"
[ ! -e "$group/$swap" ] || echo "$swap_limit" > "$group/$swap"

address=$(PYTHONPATH=benchmarks .venv/bin/python -c "import common, pathlib, processes
common.write_partitions('mnist', 1, pathlib.Path('$folder/data'))
print(processes.free_address())")
.venv/bin/python server.py --rounds 3 --min_num_clients 1 --server_address "$address" --results_dir "$folder/results" &
sleep 5
sync
echo 3 > /proc/sys/vm/drop_caches # so that the group reads all files itself
(
    echo "$BASHPID" > "$group/cgroup.procs"
    exec timeout 300 "$python" client_pytorch.py --cid 0 --num_clients 1 --mnist --data_dir "$folder/data" \
        --server_address "$address"
) || { echo "the client did not get through with $megabytes MB"; exit 1; }
wait %1
[ ! -e "$group/$peak" ] || echo "at the most $(($(cat "$group/$peak") >> 20)) of $megabytes MB were in use"
