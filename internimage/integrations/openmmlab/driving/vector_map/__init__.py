"""The map of the road as polylines: key points of every element, and its vertices in turn."""

from internimage.integrations.openmmlab.driving.vector_map.canvas import MapCanvas
from internimage.integrations.openmmlab.driving.vector_map.head import VectorMapHead
from internimage.integrations.openmmlab.driving.vector_map.ipm import IPMView

__all__ = ["IPMView", "MapCanvas", "VectorMapHead"]
