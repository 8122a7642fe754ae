"""Event files: read, merged in event-time order, published."""
