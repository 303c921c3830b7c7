"""Suites, their data, and the sweep that runs them."""
