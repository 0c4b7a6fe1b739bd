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


def test_a_port_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="no port 70000; --port takes"):
        addresses.check_free("127.0.0.1", 70000)


def test_files_that_make_no_tls_are_named(tmp_path):
    assert addresses.tls_context(None, None) is None
    with pytest.raises(ValueError, match="both --tls-certificate and --tls-key"):
        addresses.tls_context("cert.pem", None)
    with pytest.raises(OSError, match=r"nowhere\.pem with key key\.pem cannot be used for TLS: No such file"):
        addresses.tls_context(str(tmp_path / "nowhere.pem"), "key.pem")
    (tmp_path / "empty.pem").touch()
    with pytest.raises(OSError, match=r"empty\.pem with key .* cannot be used for TLS"):
        addresses.tls_context(str(tmp_path / "empty.pem"), str(tmp_path / "empty.pem"))
