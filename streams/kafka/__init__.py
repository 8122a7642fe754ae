"""The protocol: brokers, topics, batches, producers and readers; knows nothing of SKUs."""
