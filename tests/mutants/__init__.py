"""Changes of one operator at a time: does a test notice each of them? On demand, `make mutants`."""
