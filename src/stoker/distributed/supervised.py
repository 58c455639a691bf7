"""``python -m stoker.distributed.supervised MODULE WORDS...``: run a module, and end when its parent ends.

The parent holds the other end of standard input, on which nothing ever comes. A learner whose supervisor has
died must not go on: another one is started, and two would fight for the run.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the module as ``python -m`` does."""
    threading.Thread(target=_end_with_parent, name="stoker-parent", daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)  # not in good order: what is durable stays, and a resume learns it


if __name__ == "__main__":
    main()
