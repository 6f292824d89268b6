"""Encoders: from frames to feature maps, under the names of torchvision and SlowFast in the state dict."""

from .mobilenet_v2 import MobileNetV2
from .resnet import ResNet50
from .x3d import X3D

__all__ = ["X3D", "MobileNetV2", "ResNet50"]
