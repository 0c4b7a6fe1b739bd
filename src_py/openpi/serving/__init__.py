"""Serving policies to robots: websocket server, sessions, replicas, Ray."""
