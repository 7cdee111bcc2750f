"""Makes the test films of a box, lets the first in as its DICOM port would, and judges it, for `killer.py` to strike in between.

Usage: python phantom.py STATE
"""

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from edge import phantom
from edge.config import Config
from edge.state import phantoms
from edge.state.objects import Objects
from edge.state.store import open_store
from edge.worker import Worker

config = Config(state=sys.argv[1])
with closing(open_store(Path(config.state))) as store:
    worker, objects = Worker(config, store), Objects(Path(config.state))
    worker.test()
    _, film = phantoms.to_send(store)[0]
    with tempfile.NamedTemporaryFile(dir=objects.incoming, delete=False) as file:
        file.write(film)
    phantom.arrives(store, objects, Path(file.name))
    worker.test()
