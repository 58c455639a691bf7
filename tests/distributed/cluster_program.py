"""A Ray cluster in a process of its own: ``cluster_program.py CPUS...`` starts a node for each number.

It prints the address when all nodes have started, adds a node for each further number that it reads, removes
the last one for each ``-`` and the head for ``head``, answers each line with one, and ends with its standard
input.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

import psutil
from ray.cluster_utils import Cluster


def main() -> None:
    first, *others = sys.argv[1:]
    settings = {"include_dashboard": False, "include_log_monitor": False, "object_store_memory": 80 << 20}
    head = {"num_cpus": int(first), "no_monitor": True, **settings}
    cluster = tried(Cluster, initialize_head=True, head_node_args=head)
    nodes = [tried(cluster.add_node, num_cpus=int(n), **settings) for n in others]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "-":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        elif line.strip() == "head":
            cluster.remove_node(cluster.head_node, allow_graceful=False)
        else:
            nodes.append(tried(cluster.add_node, num_cpus=int(line), **settings))
        print("done", flush=True)
    cluster.shutdown()


def tried(start: Callable[..., Any], **settings: Any) -> Any:
    """Start something; Ray allows a node 30 s, which a busy machine may need more of."""
    others = psutil.Process().children(recursive=True)
    for _ in range(5):
        try:
            return start(**settings)
        except Exception as error:
            if "timed out" not in str(error):
                raise
        for process in psutil.Process().children(recursive=True):
            if process not in others:  # of the node that was too late
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    return start(**settings)


if __name__ == "__main__":
    main()
