"""Servers over several loops. Uses all but `_pool` and `_setup`."""
