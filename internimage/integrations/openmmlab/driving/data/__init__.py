"""Readers of the driving data sets, their transforms and the order of their frames."""
