"""How a worker and the commands can be watched: metrics, logs, progress."""
