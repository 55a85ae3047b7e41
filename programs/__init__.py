"""Programs that run on a chain: their source, what was built from it, and how. Nothing here runs in the hub."""
