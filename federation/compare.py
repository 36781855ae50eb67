"""Compare runs: python -m federation.compare results/monday results/tuesday [--accuracy 0.9]."""

from __future__ import annotations

from federation.comparison import Comparison, png, read_run
from federation.flags import ArgumentParser, content, fraction


def main() -> None:
    """Print the table and draw the picture of the runs that the command line names."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("runs", type=content(read_run), nargs="+", metavar="FOLDER", help="the results of a run")
    parser.add_argument("--accuracy", type=fraction, help="compare until then (default: the highest that all reach)")
    parser.add_argument("--picture", type=content(png), default="comparison.png", help="as PNG (default: %(default)s)")
    args = parser.parse_args()
    comparison = Comparison(args.runs, args.accuracy)
    if not any(comparison.curves):
        parser.error("no accuracy is known yet of any of these runs")
    print(comparison.table())
    try:
        comparison.draw(args.picture)
    except Exception as error:  # the disk is full, or whatever matplotlib stumbles over
        parser.exit(1, f"{parser.prog}: cannot draw {args.picture}: {error}\n")
    print(f"drawn in {args.picture}")


if __name__ == "__main__":
    main()
