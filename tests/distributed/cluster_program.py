"""A Ray cluster in a process of its own: ``cluster_program.py CPUS...`` starts a node for each number.

It prints the address when all nodes have started, adds a node for each further number that it reads, removes
the last one for each ``-``, answers each line with one, and ends with its standard input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

from ray.cluster_utils import Cluster


def main() -> None:
    first, *others = sys.argv[1:]
    settings = {"include_dashboard": False, "object_store_memory": 80 << 20}
    head = {"num_cpus": int(first), **settings}
    cluster = tried(Cluster, initialize_head=True, head_node_args=head)
    nodes = [tried(cluster.add_node, num_cpus=int(n), **settings) for n in others]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "-":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        else:
            nodes.append(tried(cluster.add_node, num_cpus=int(line), **settings))
        print("done", flush=True)
    cluster.shutdown()


def tried(start: Callable[..., Any], **settings: Any) -> Any:
    """Start something; Ray allows a node 30 s, which a busy machine may need more of."""
    for _ in range(3):
        try:
            return start(**settings)
        except Exception as error:
            if "timed out" not in str(error):
                raise
    return start(**settings)


if __name__ == "__main__":
    main()
