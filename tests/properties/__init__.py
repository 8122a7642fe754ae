"""Tests of this kind; a package, so that two kinds may have a module of one name."""
