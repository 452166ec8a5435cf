"""Tests of tokioloop."""
