"""Takes a film into a box in this process, for `killer.py` to strike in the middle of it.

Usage: python arrive.py STATE FILM
"""

import sys
from contextlib import closing
from pathlib import Path

from edge.config import Config
from edge.config import Intake as Settings
from edge.intake import Intake

intake = Intake(Config(state=sys.argv[1], intake=Settings(disk_floor_mib=0)))
with closing(intake.store):
    intake.accept_copy(Path(sys.argv[2]), "folder")
