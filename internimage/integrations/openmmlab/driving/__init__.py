"""Three tasks of driving from cameras alone, on one bird's-eye view.

Importing this registers, in the root registries of mmengine, all that configs name.
"""

from internimage.integrations.openmmlab.driving.data.argoverse_map import (
    ArgoverseMapDataset,
    LoadVectorMap,
)
from internimage.integrations.openmmlab.driving.data.dataset import DrivingDataset
from internimage.integrations.openmmlab.driving.data.occ3d import LoadOccupancy, Occ3DDataset
from internimage.integrations.openmmlab.driving.data.openlane import LoadOpenLane, OpenLaneDataset
from internimage.integrations.openmmlab.driving.data.sampler import SceneSampler
from internimage.integrations.openmmlab.driving.data.transforms import (
    DrivingPhotometricDistortion,
    LoadDrivingImages,
    PackDrivingInputs,
    ResizeDrivingImages,
    ScaleMatricesByPadding,
)
from internimage.integrations.openmmlab.driving.encoder import BEVFormerView
from internimage.integrations.openmmlab.driving.geometry import BEVGrid
from internimage.integrations.openmmlab.driving.history import BEVHistory
from internimage.integrations.openmmlab.driving.lanes.head import OpenLaneHead
from internimage.integrations.openmmlab.driving.metrics.dump import DumpDrivingResults
from internimage.integrations.openmmlab.driving.metrics.occupancy_metric import OccupancyMetric
from internimage.integrations.openmmlab.driving.metrics.openlane_metric import OpenLaneMetric
from internimage.integrations.openmmlab.driving.metrics.scene_metric import SceneMetric
from internimage.integrations.openmmlab.driving.metrics.vector_map_metric import VectorMapMetric
from internimage.integrations.openmmlab.driving.model import BEVModel
from internimage.integrations.openmmlab.driving.occupancy import OccupancyHead
from internimage.integrations.openmmlab.driving.pictures.hook import DrivingPicturesHook
from internimage.integrations.openmmlab.driving.preprocessor import BEVDataPreprocessor
from internimage.integrations.openmmlab.driving.sample import DrivingSample
from internimage.integrations.openmmlab.driving.vector_map import IPMView, VectorMapHead

__all__ = [
    "ArgoverseMapDataset",
    "BEVFormerView",
    "BEVGrid",
    "BEVHistory",
    "BEVModel",
    "BEVDataPreprocessor",
    "DrivingDataset",
    "DrivingPhotometricDistortion",
    "DrivingPicturesHook",
    "DrivingSample",
    "IPMView",
    "DumpDrivingResults",
    "LoadDrivingImages",
    "LoadOccupancy",
    "LoadOpenLane",
    "LoadVectorMap",
    "Occ3DDataset",
    "OccupancyHead",
    "OccupancyMetric",
    "OpenLaneDataset",
    "OpenLaneHead",
    "OpenLaneMetric",
    "PackDrivingInputs",
    "ResizeDrivingImages",
    "ScaleMatricesByPadding",
    "SceneMetric",
    "SceneSampler",
    "VectorMapHead",
    "VectorMapMetric",
]
