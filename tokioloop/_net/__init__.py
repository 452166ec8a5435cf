"""What a loop does on the network: connections, servers, names, files sent, streams. Uses `_loop`."""
