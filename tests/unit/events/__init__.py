"""Unit tests of streams/events/."""
