"""Released models whose names are enough: files ``NAME.pth`` in the hub's repository."""

RELEASED_DETECTORS = (
    "mask_rcnn_internimage_t_fpn_1x_coco",
    "mask_rcnn_internimage_t_fpn_3x_coco",
    "mask_rcnn_internimage_s_fpn_1x_coco",
    "mask_rcnn_internimage_s_fpn_3x_coco",
    "mask_rcnn_internimage_b_fpn_1x_coco",
    "mask_rcnn_internimage_b_fpn_3x_coco",
    "cascade_internimage_l_fpn_1x_coco",
    "cascade_internimage_l_fpn_3x_coco",
    "cascade_internimage_xl_fpn_1x_coco",
    "cascade_internimage_xl_fpn_3x_coco",
    "dino_4scale_internimage_t_1x_coco",
    "dino_4scale_internimage_l_1x_coco_0.1x_backbone_lr",
    "dino_4scale_internimage_h_objects365_coco",
    "dino_4scale_internimage_g_objects365_coco",
    "dino_4scale_cbinternimage_h_objects365_80classes",
    "dino_4scale_cbinternimage_h_objects365_20classes",
    "dino_4scale_cbinternimage_h_objects365_coco",
    "dino_4scale_cbinternimage_h_objects365_lvis",
    "dino_4scale_cbinternimage_h_objects365_openimages",
    "dino_4scale_cbinternimage_h_objects365_voc0712",
)
"""Those of DINO have other names than their configs: detection/README.md says which is which."""

RELEASED_SEGMENTORS = (
    "upernet_internimage_t_512_160k_ade20k",
    "upernet_internimage_s_512_160k_ade20k",
    "upernet_internimage_b_512_160k_ade20k",
    "upernet_internimage_l_640_160k_ade20k",
    "upernet_internimage_xl_640_160k_ade20k",
    "upernet_internimage_h_896_160k_ade20k",
    "mask2former_internimage_h_896_80k_cocostuff2ade20k",
    "upernet_internimage_t_512x1024_160k_cityscapes",
    "upernet_internimage_s_512x1024_160k_cityscapes",
    "upernet_internimage_b_512x1024_160k_cityscapes",
    "upernet_internimage_l_512x1024_160k_cityscapes",
    "upernet_internimage_xl_512x1024_160k_cityscapes",
    "upernet_internimage_l_512x1024_160k_mapillary2cityscapes",
    "upernet_internimage_xl_512x1024_160k_mapillary2cityscapes",
    "segformer_internimage_l_512x1024_160k_mapillary2cityscapes",
    "segformer_internimage_xl_512x1024_160k_mapillary2cityscapes",
    "mask2former_internimage_h_1024x1024_80k_mapillary2cityscapes",
    "upernet_internimage_l_512x1024_80k_mapillary",
    "upernet_internimage_xl_512x1024_80k_mapillary",
    "segformer_internimage_l_512x1024_80k_mapillary",
    "segformer_internimage_xl_512x1024_80k_mapillary",
    "mask2former_internimage_h_896x896_80k_mapillary",
    "mask2former_internimage_h_896_80k_cocostuff164k",
    "mask2former_internimage_h_512_40k_cocostuff164k_to_10k",
    "mask2former_internimage_h_480_40k_pascal_context_59",
    "mask2former_internimage_h_480_40k_nyu",
)
"""They are called as their configs; ``..._cocostuff2ade20k`` is for both, ``_ss`` and ``_ms``."""

RELEASED_MODELS = (*RELEASED_DETECTORS, *RELEASED_SEGMENTORS)
