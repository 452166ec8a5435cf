"""TLS by rustls, as an option: configurations to use where an ``ssl.SSLContext`` does.

server = await loop.create_server(factory, host, port, ssl=tokioloop.tls.ServerConfig("server.pem", "server.key"))
await loop.create_connection(factory, host, port, ssl=tokioloop.tls.ClientConfig())

A configuration is immutable. Any thread may use it, and any number of loops at once. Connections behave as they do with an
``SSLContext``; errors are ``ssl.SSLError`` and its subclasses.
"""

from ._tokioloop import ClientConfig, Connection, ServerConfig

__all__ = ("ClientConfig", "Connection", "ServerConfig")
