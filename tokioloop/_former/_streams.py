from tokioloop import StreamReader as StreamReader
from tokioloop import StreamReaderProtocol as StreamReaderProtocol
from tokioloop import StreamWriter as StreamWriter
from tokioloop import open_connection as open_connection
from tokioloop import open_unix_connection as open_unix_connection
from tokioloop import start_server as start_server
from tokioloop import start_unix_server as start_unix_server
