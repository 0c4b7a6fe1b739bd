"""Where a server listens."""

import socket


def check_free(host: str, port: int) -> None:
    """Find out that nothing can listen there before minutes go into loading a model.

    Raises:
        OSError: the port is taken, not allowed, or the host is none of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"Cannot listen on {host}:{port}: {reason}. Choose others with --host and --port.") from error
