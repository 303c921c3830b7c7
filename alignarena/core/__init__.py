"""The contract, the registry, configuration and records: everything a method file needs, and no torch."""
