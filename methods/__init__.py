"""Alignment methods: one file each, prose over the verbs of the lab."""
