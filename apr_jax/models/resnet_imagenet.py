"""ResNet-18 and ResNet-34 (He et al. 2016) with the ImageNet stem, as torchvision's."""

from typing import ClassVar

from apr_jax.models.resnet import ImageNetResNet


class ResNet18ImageNet(ImageNetResNet):
    """ResNet-18 for large images; that for small ones has another stem."""

    called: ClassVar[str] = "resnet18_imagenet"
    sizes: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    bottleneck: ClassVar[bool] = False


class ResNet34ImageNet(ImageNetResNet):
    """ResNet-34 for large images."""

    called: ClassVar[str] = "resnet34_imagenet"
    sizes: ClassVar[tuple[int, ...]] = (3, 4, 6, 3)
    bottleneck: ClassVar[bool] = False
