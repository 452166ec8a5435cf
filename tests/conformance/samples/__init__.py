"""Tiny test modules and loops with which `test_lane` tries the runner itself."""
