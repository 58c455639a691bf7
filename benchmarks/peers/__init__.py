"""Servers of others, or in their manner, that benchmarks start as processes."""
