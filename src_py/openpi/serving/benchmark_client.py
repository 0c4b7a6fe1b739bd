"""One client of a server to be measured, as a script: `benchmark_client.py PORT REQUESTS`, the observation on stdin.

Uses only names that both packages have, ours and the published one, so that each server is also measured with the
client that its users have. The observation comes packed. Prints, in JSON, for every request the whole time and the
policy's own [ms].
"""

import json
import sys
import time

from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

WARM_UP_REQUESTS = 10


def main(port: str, requests: str) -> None:
    """Ask one request after the other."""
    observation = msgpack_numpy.unpackb(sys.stdin.buffer.read())
    client = WebsocketClientPolicy("127.0.0.1", int(port))
    times = []
    for _ in range(WARM_UP_REQUESTS + int(requests)):
        start = time.perf_counter()
        result = client.infer(observation)
        times.append(((time.perf_counter() - start) * 1e3, result["server_timing"]["infer_ms"]))
    print(json.dumps(times[WARM_UP_REQUESTS:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
