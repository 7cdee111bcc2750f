"""`python -m edge` is `outpost`."""

from edge.cli import main

main()
