"""Lanes, traffic elements and their relations: OpenLane-V2 (arXiv 2304.10440)."""
