"""trackio's dashboard on a port, without a browser: the data is where TRACKIO_DIR says."""

from __future__ import annotations

import sys

import trackio

if __name__ == "__main__":
    trackio.show(open_browser=False, server_port=int(sys.argv[1]), block_thread=True, share=False)
