"""Occupancy: a class for each voxel around the vehicle."""

from internimage.integrations.openmmlab.driving.occupancy.head import OccupancyHead

__all__ = ["OccupancyHead"]
