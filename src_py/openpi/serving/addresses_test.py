import socket

import pytest

from openpi.serving import addresses


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_taken_port_is_named_and_a_free_one_is_not(family, host):
    try:
        listener = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"{host}:{port}.*--port"):
            addresses.check_free(host, port)
    addresses.check_free(host, port)


def test_a_strange_host_is_named():
    with pytest.raises(OSError, match=r"Cannot listen on 203\.0\.113\.1:80"):
        addresses.check_free("203.0.113.1", 80)
