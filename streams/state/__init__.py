"""What survives a restart: the store, the changelog, snapshots, and how they are verified."""
