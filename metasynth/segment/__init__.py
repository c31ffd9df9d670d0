"""Segmenters: networks, losses, metrics, model files, and the atlas segmenter, which needs no training."""

from metasynth.segment.atlas.prior import Atlas, plane_atlases
from metasynth.segment.atlas.segmenter import AtlasSegmenter
from metasynth.segment.backbone import Backbone
from metasynth.segment.backbones import nnunet
from metasynth.segment.entry import BackboneEntry, Design, NetworkSettings
from metasynth.segment.losses import cross_entropy_loss, logit_mse_loss, soft_dice_loss
from metasynth.segment.metrics import DiceAccumulator, hausdorff_distance
from metasynth.segment.model_description import ModelDescription, TrainedModel
from metasynth.segment.model_file import find_model, load_model, model_path, save_model
from metasynth.segment.monai_networks import monai_network
from metasynth.segment.table import from_recipe, register
from metasynth.segment.unet import UNet

__all__ = [
    "Atlas",
    "AtlasSegmenter",
    "Backbone",
    "BackboneEntry",
    "Design",
    "DiceAccumulator",
    "ModelDescription",
    "NetworkSettings",
    "TrainedModel",
    "UNet",
    "cross_entropy_loss",
    "find_model",
    "from_recipe",
    "hausdorff_distance",
    "load_model",
    "logit_mse_loss",
    "model_path",
    "monai_network",
    "nnunet",
    "plane_atlases",
    "register",
    "save_model",
    "soft_dice_loss",
]
