"""Records _static/tmux.gif: a federation of four virtual boards in tmux, the server and what two of the boards say.

    sudo .venv/bin/python tests/record_tmux.py

Needs what virtual_boards.py needs, and Xvfb, xterm, tmux and ffmpeg. The boards train MNIST on the digits in
sample_data/, cut into four partitions, in TensorFlow. Frames that show nothing new are left out.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from conftest import copy_sample
from processes import ROOT, Processes
from test_boards import Laptop
from test_fleet import write_inventory
from test_readme import copy_project
from virtual_boards import VirtualBoards

DISPLAY = ":97"
SECONDS = 55  # of recording: longer, and it shows how the clients start again
SERVER = "python server.py --rounds 3 --min_num_clients 4 --epochs 5"
FILTERS = (
    "mpdecimate=hi=64*12:lo=64*5:frac=0.02,setpts=N/4/TB,scale=1020:-1:flags=lanczos,split[a][b];"
    "[a]palettegen=max_colors=48:stats_mode=diff[p];[b][p]paletteuse=dither=none"
)


def record(laptop: Laptop, folder: Path) -> None:
    """Type into a terminal of the laptop, and make a picture of it that moves."""
    os.environ.update(DISPLAY=DISPLAY, LC_ALL="C.UTF-8", TMUX_TMPDIR=str(folder))
    (folder / "bashrc").write_text('PS1="\\[\\e[32m\\]$ \\[\\e[0m\\]"; clear\n')
    (folder / "tmux.conf").write_text('set -g status-left ""\nset -g status-right ""\n')
    shell = f"bash --noprofile --rcfile {folder}/bashrc"

    def tmux(*words: str) -> None:
        laptop.paste(f"exec tmux -f {folder}/tmux.conf " + " ".join(f"'{word}'" for word in words))

    def type_into(pane: int, text: str) -> None:
        tmux("send-keys", "-t", f"federation:0.{pane}", "-l", text)
        time.sleep(0.7)
        tmux("send-keys", "-t", f"federation:0.{pane}", "Enter")

    programs = [subprocess.Popen(["Xvfb", DISPLAY, "-screen", "0", "1360x780x24"], stderr=subprocess.DEVNULL)]
    try:
        time.sleep(2)
        tmux("new-session", "-d", "-s", "federation", "-n", "federation", "-x", "168", "-y", "45", shell)
        tmux("split-window", "-v", "-l", "45%", "-t", "federation:0.0", shell)
        tmux("split-window", "-h", "-t", "federation:0.1", shell)
        look = ["-geometry", "168x46+0+0", "-fs", "10", "-bg", "#1c1f26", "-fg", "#e4e6eb"]
        terminal = ["xterm", *look, "-fa", "DejaVu Sans Mono", "-e", "tmux", "attach", "-t", "federation"]
        programs.append(subprocess.Popen(terminal))
        time.sleep(3)
        size = ["-framerate", "4", "-video_size", "1360x780"]
        screen = ["ffmpeg", "-loglevel", "error", "-f", "x11grab", "-draw_mouse", "0", *size, "-i", DISPLAY]
        video = folder / "run.mkv"
        ffmpeg = subprocess.Popen([*screen, "-t", str(SECONDS), "-c:v", "libx264rgb", "-crf", "0", "-y", str(video)])
        time.sleep(1)
        for number in (1, 2):
            type_into(number, f"ssh pi@board-{number} journalctl -f -n 0 -o cat -u flower-client@fleet")
        type_into(0, SERVER)
        ffmpeg.wait(SECONDS + 60)
        tmux("kill-server")
    finally:
        for program in programs:
            program.terminate()
            program.wait(30)
    smaller = ["ffmpeg", "-loglevel", "error", "-i", str(video), "-vf", FILTERS, "-r", "4", "-loop", "0", "-y"]
    subprocess.run([*smaller, str(ROOT / "_static/tmux.gif")], check=True)


def main() -> None:
    """Boot boards, make them a fleet, and record a run."""
    with tempfile.TemporaryDirectory() as name, VirtualBoards(Path(name), number=4) as boards:
        project = Path(name, "laptop/embedded-devices")
        copy_project(project)
        copy_sample(project / "data")
        with Processes(Path(name, "laptop"), project) as processes:
            laptop = Laptop(boards, processes)
            hosts = {f"board-{cid + 1}": {"cid": cid} for cid in range(4)}
            write_inventory(project / "fleet/boards.yml", hosts, framework="tf", num_clients=4)
            laptop.paste("ansible-playbook fleet/setup.yml && ansible-playbook fleet/start.yml", timeout=1800)
            record(laptop, Path(name))


if __name__ == "__main__":
    main()
