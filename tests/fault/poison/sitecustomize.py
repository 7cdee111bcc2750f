"""Found by every Python that has this folder on its path: films that kill or hang whoever decodes them, as a broken codec would."""

import os
import signal
import time

from edge.stages import decode

whole = decode.decode


def poisoned(dataset):
    match str(dataset.PatientName):
        case "Poison^Film":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "Hang^Film":
            time.sleep(3600)
    return whole(dataset)


decode.decode = poisoned
