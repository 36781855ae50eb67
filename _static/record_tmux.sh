#!/usr/bin/env bash
# Records tmux.gif: a real run of a server and two clients, with htop beside them, in tmux in a terminal.
#
#     _static/record_tmux.sh
#
# Needs Xvfb, xterm, tmux, htop and ffmpeg, and .venv as the README makes it. The clients train MNIST on the digits in
# sample_data/, cut into two partitions. Frames that show nothing new are left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
export DISPLAY=:97 LC_ALL=C.UTF-8 TMUX_TMPDIR=$work
trap 'kill $(jobs -p) 2>/dev/null || true; tmux kill-server 2>/dev/null || true; rm -rf "$work"' EXIT
Xvfb "$DISPLAY" -screen 0 1360x780x24 2>/dev/null &
sleep 2

printf 'set -g mouse on\nset -g status-left ""\nset -g status-right ""\n' > "$work/tmux.conf"
printf 'source .venv/bin/activate; PS1="\\[\\e[32m\\]$ \\[\\e[0m\\]"; clear\n' > "$work/bashrc"
shell="bash --noprofile --rcfile $work/bashrc"
tmux -f "$work/tmux.conf" new-session -d -s federation -n federation -x 168 -y 45 "$shell"
tmux split-window -v -l 55% -t federation:0.0 "$shell"
tmux split-window -v -l 50% -t federation:0.1 "htop --no-color --delay 10 --filter 'cid=|server.py'"
tmux split-window -h -t federation:0.1 "$shell"
xterm -geometry 168x46+0+0 -fa "DejaVu Sans Mono" -fs 10 -bg "#1c1f26" -fg "#e4e6eb" -e tmux attach -t federation &
sleep 3
ffmpeg -loglevel error -f x11grab -draw_mouse 0 -framerate 4 -video_size 1360x780 -i "$DISPLAY" -t 40 -c:v libx264rgb -crf 0 -y "$work/run.mkv" &
recorder=$!

type_into() {
    tmux send-keys -t "federation:0.$1" -l "$2"
    sleep 0.7
    tmux send-keys -t "federation:0.$1" Enter
}
sleep 1
type_into 0 "python server.py --rounds 3 --min_num_clients 2 --epochs 8 --server_address 127.0.0.1:8080"
for cid in 0 1; do
    type_into $((cid + 1)) "python client_pytorch.py --cid=$cid --num_clients 2 --mnist --data_dir sample_data"
done
wait "$recorder"
ffmpeg -loglevel error -i "$work/run.mkv" -vf "mpdecimate=hi=64*12:lo=64*5:frac=0.02,setpts=N/4/TB,scale=1020:-1:flags=lanczos,split[a][b];[a]palettegen=max_colors=48:stats_mode=diff[p];[b][p]paletteuse=dither=none" \
    -r 4 -loop 0 -y _static/tmux.gif
