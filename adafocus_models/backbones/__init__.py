"""Encoders: from frames to feature maps, under torchvision's names in the state dict."""

from .mobilenet_v2 import MobileNetV2
from .resnet import ResNet50

__all__ = ["MobileNetV2", "ResNet50"]
