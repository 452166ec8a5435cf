"""The parts of a loop apart from the network: its life, errors, signals, blocking calls, its tasks. Uses the native module only."""
