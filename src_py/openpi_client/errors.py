"""What can go wrong between a robot and its policy server; all of it derives from `PolicyClientError`."""


class PolicyClientError(Exception):
    """Base of the exceptions of this package's clients."""


class ServerLostError(PolicyClientError, ConnectionError):
    """The server cannot be reached, refused the connection, or went away before it answered."""


class ServerTimeoutError(ServerLostError, TimeoutError):
    """The server did not answer within the time-out. The connection is dropped: its late answer is not for us."""


class ServerRefusedError(ServerLostError):
    """The server answered, and does not want this client: a wrong API key, too many clients, no such path."""


class InferenceError(PolicyClientError, RuntimeError):
    """The server reported an error for this observation; the message holds its words."""


class ProtocolError(PolicyClientError, ValueError):
    """The server sent something that the protocol does not allow."""


class RequestCancelledError(PolicyClientError):
    """`cancel` or `close` was called while the request waited."""
