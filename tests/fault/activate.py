"""Activates a bundle, in this process, for `killer.py` to strike in the middle of it.

Usage: python activate.py STATE BUNDLE; what a bundle computes is left out, for it makes no durable step.
"""

import sys
from pathlib import Path

from edge.state import installed
from models.bundle import load

installed.activate(Path(sys.argv[1]), Path(sys.argv[2]), lambda folder: load(folder).digest)
