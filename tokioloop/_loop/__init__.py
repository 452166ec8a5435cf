"""What a loop is apart from the network: its life, errors, signals, blocking calls, the tasks on it. Uses the native module only."""
