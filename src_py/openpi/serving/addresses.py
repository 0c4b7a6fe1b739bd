"""Where a server listens, and how it proves who it is."""

import socket
import ssl

LARGEST_PORT = 65535


def check_free(host: str, port: int) -> None:
    """Find out that nothing can listen there before minutes go into loading a model.

    Raises:
        OSError: the port is taken, not allowed, or the host is none of this machine.
        ValueError: there is no such port.
    """
    if not 0 <= port <= LARGEST_PORT:  # which the resolver would cut to 16 bits
        raise ValueError(f"There is no port {port}; --port takes 0 (any that is free) to {LARGEST_PORT}.")
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"Cannot listen on {host}:{port}: {reason}. Choose others with --host and --port.") from error


def tls_context(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """What makes an address wss://, from two PEM files; None where neither is given.

    Raises:
        ValueError: one is given without the other.
        OSError: they cannot be read, or do not belong together.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ValueError("TLS needs both --tls-certificate and --tls-key.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"Certificate {certificate} with key {key} cannot be used for TLS: {reason}.") from error
    return context
