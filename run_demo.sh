#!/usr/bin/env bash
# A whole federation on this machine: a server and two clients, in separate processes, learn to read digits. The clients
# use PyTorch, or TensorFlow with --tf. With --onnx, they use a network that is already trained.
#
#     ./run_demo.sh
#     ./run_demo.sh --tf
#     ./run_demo.sh --onnx
#
# Needs Python 3.9 to 3.13. The first run installs the dependencies into .venv, which needs the internet; later runs do
# not. The digits are those in sample_data/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }
framework=pytorch rounds=3
case "$#:${1:-}" in
    0:) ;;
    1:--tf) framework=tf ;;
    1:--onnx) framework=onnx rounds=1 ;; # more rounds would change nothing
    1:-h | 1:--help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac

./setup_venv.sh "requirements_$framework.txt"
python=.venv/bin/python
port=$($python -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
results=results/demo-$(date +%Y-%m-%d-%H%M%S)
mkdir -p "$results"

trap 'exit 130' INT TERM
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT # leaves no process behind, however this ends

echo "== making two partitions of the sample, and its test split"
$python -m federation.data --mnist --num_clients 2 --cid 0 1 --test --data_dir sample_data

echo "== starting the server and two clients with $framework; their output goes to $results/client_*.log"
$python server.py --rounds "$rounds" --min_num_clients 2 --sample_fraction 1.0 --server_address "127.0.0.1:$port" \
    --evaluate_with "$framework" --mnist --data_dir sample_data --results_dir "$results" &
server=$!
for cid in 0 1; do
    $python "client_$framework.py" --cid "$cid" --num_clients 2 --mnist --data_dir sample_data \
        --server_address "127.0.0.1:$port" > "$results/client_$cid.log" 2>&1 &
done
wait "$server"
wait # for the clients, which end by themselves
echo "== done in $SECONDS s: see $results/history.png, rounds.csv, clients.csv"
