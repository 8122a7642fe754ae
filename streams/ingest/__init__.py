"""A stage of its own before the worker: records of an order bus in, events on the input topics out, exactly once."""
