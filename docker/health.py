"""Is this container's part of the cluster well? Exit code 0 or 1, and why.

    python health.py scheduler             # it answers
    python health.py worker HOST           # the scheduler on HOST knows a worker of this container
"""

from __future__ import annotations

import json
import socket
import sys
from urllib.parse import urlparse
from urllib.request import urlopen

PORT = 8787
"""Where a scheduler answers over HTTP, with or without a dashboard."""


def main(part: str, host: str = "127.0.0.1") -> int:
    try:
        with urlopen(f"http://{host}:{PORT}/json/identity.json", timeout=5) as answer:
            workers = json.load(answer)["workers"]
    except OSError as error:
        print(f"no scheduler answers at {host}:{PORT}: {error}")
        return 1
    if part == "scheduler":
        print(f"{len(workers)} workers")
        return 0
    own = address_towards(host)
    mine = sum(urlparse(address).hostname == own for address in workers)
    print(f"{mine} workers of {own}")
    return 0 if mine else 1


def address_towards(host: str) -> str:
    """The address of this machine by which the scheduler knows its workers. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((host, PORT))
        found: str = udp.getsockname()[0]
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
