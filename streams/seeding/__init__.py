"""History behind a live start: the state that a worker would have, had it always been there, made of event files."""
