"""Ratios of things run side by side; ``python -m benchmarks`` runs all and writes results.json."""
