"""The line of a client on a terminal."""

from __future__ import annotations

from federation.client.progress import Progress


def line(progress: Progress, width: int = 100) -> str:
    (text,) = progress._render(width, 24)
    return text


def test_a_fit():
    progress = Progress()
    assert line(progress) == ""
    progress.tell("round 3", ", then the server averages")
    assert line(progress) == "round 3, then the server averages"
    progress._began -= 12
    progress.show(1.75, epochs=3, part=0.6)
    assert line(progress) == ("round 3, epoch 2 of 3 ━━━━━━━━━━━━──────── 60%, 8 s left, then the server averages")
    assert line(progress, width=20) == "round 3, epoch 2 of "
    progress.tell("round 3", " is trained, waits for the average")
    assert line(progress) == "round 3 is trained, waits for the average"
