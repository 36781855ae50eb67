#!/usr/bin/env bash
# Measures everything that benchmarks/README.md has, and writes the tables into the folder results/benchmarks, a file
# for each script: about two hours, on a machine with nothing else to do.
#
#     sudo benchmarks/all.sh data
#     sudo benchmarks/all.sh data accuracy client_costs
#
# The folder has the data sets, as the clients put them there. Further words choose scripts, without their .py. Needs
# root, Linux, the commands ip and tc, and .venv as ./run_tests.sh makes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
    "" | -*) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
data=$1 python=.venv/bin/python results=results/benchmarks
shift
mkdir -p "$results"

# Runs the script $1 with the further words, if it is one of those that were chosen; $chosen is empty for all.
chosen=" $* "
measure() {
    local name=$1
    shift
    [[ $chosen =~ ^\ *$ || $chosen == *" $name "* ]] || return 0
    echo "== $name $*"
    "$python" "benchmarks/$name.py" "$@" | tee -a "$results/$name.md"
}

for framework in pytorch tf; do
    measure accuracy "$framework" --data_dir "$data" --seeds 0 1 2 3 4
    measure accuracy "$framework" --mnist --data_dir sample_data --num_partitions 2 --seeds 0 1 2 3 4
    measure accuracy "$framework" --data_dir "$data" --num_partitions 2
    measure accuracy "$framework" --mnist --data_dir "$data" --num_partitions 2
done
measure pretrained --data_dir "$data"
measure accuracy_over_time --data_dir "$data" --seconds 30 --picture _static/accuracy_over_time.png
measure client_costs
measure several_clients
measure many_clients
measure engines simulation
measure engines simulation --clients 200 --images 270
measure engines deployment
measure unequal_boards --data_dir "$data" --picture _static/unequal_boards.png
measure shared_link
measure shared_link --mbit 0 --data_dir "$data" --seed 1
measure shared_link --mbit 0 --data_dir "$data" --seed 2
