"""Estimates of what each node and each edge of a feature graph does to the metric."""
