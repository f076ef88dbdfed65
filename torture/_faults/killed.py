"""What torchrun runs: killed.py FOLDER RANK, a fit in which a process kills itself, once."""

import os
import signal
import sys
from pathlib import Path

from mogul.compute.collective import restarts
from torture._faults.groups import worker

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), sys.argv[2]
    if restarts() == 0 and os.environ["RANK"] == rank:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        kept = folder / "model.mogul"

        def soon(*_: object) -> None:
            """Die once a pass is kept."""
            if kept.exists():
                os.kill(os.getpid(), signal.SIGKILL)

        signal.signal(signal.SIGALRM, soon)
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    worker(folder, lambda line: None)
