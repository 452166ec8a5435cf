"""Servers over several loops. Uses all other folders except `_pool` and `_setup`."""
