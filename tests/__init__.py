"""Tests, from the smallest to those on a real broker."""
