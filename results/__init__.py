"""What a run leaves, read back as tidy tables and statistics; no torch."""
