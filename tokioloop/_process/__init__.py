"""Children of the process. Uses `_net` and `_loop`."""
