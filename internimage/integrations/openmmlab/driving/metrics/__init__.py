"""Metrics of the driving tasks."""
