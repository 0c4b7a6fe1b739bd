"""Client of a policy server: wire format, websocket client, image tools, runtime loop."""
