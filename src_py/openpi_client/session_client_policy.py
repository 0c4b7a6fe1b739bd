"""The blocking client of a session server."""

from openpi_client import async_client, dialects
from openpi_client.async_client import ClientOptions
from openpi_client.websocket_client_policy import WebsocketClientPolicy


class SessionClientPolicy(WebsocketClientPolicy):
    """A session with one checkpoint of a session server, the latest one by default.

    Like `WebsocketClientPolicy`; observations and actions have the form of the server's codec, which
    `get_server_metadata` names, and the server answers an error without closing the session.
    """

    def __init__(
        self,
        host: str = "0.0.0.0",
        port: int | None = None,
        checkpoint_id: str | None = None,
        api_key: str | None = None,
        *,
        options: ClientOptions | None = None,
    ) -> None:
        url = async_client.session_url(async_client.policy_url(host, port), checkpoint_id)
        self._open(url, api_key, options, dialects.SessionDialect())
