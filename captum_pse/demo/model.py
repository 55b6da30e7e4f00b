"""The demo model: a small all-convolutional classifier of the drawn scenes."""

from __future__ import annotations

from collections import OrderedDict
from importlib import resources

from torch import Tensor, nn

from captum_pse.demo.things import CLASSES

WEIGHTS = "weights.safetensors"


class DemoNet(nn.Module):
    """Five 3 x 3 convolutions, a global average pool and one linear head.

    Maps RGB images in [0, 1], shape ``(N, 3, H, W)`` (trained at 64 x 64), to logits of
    shape ``(N, 12)`` in the order of :data:`captum_pse.demo.CLASSES`. The convolutional
    layers are ``features.conv1`` to ``features.conv5``. Each ends in a ReLU that is not
    in-place. Max pooling halves the maps after each of the first three.

    Args:
        widths (tuple of int, optional): Numbers of units of the five layers; the
            default is that of the trained model. Default: ``(32, 48, 64, 96, 96)``

    Examples::

        >>> import torch
        >>> model = DemoNet(widths=(4, 4, 4, 4, 8)).eval()
        >>> tuple(model(torch.zeros(2, 3, 64, 64)).shape)
        (2, 12)
        >>> tuple(model.features(torch.zeros(2, 3, 64, 64)).shape)
        (2, 8, 8, 8)
    """

    def __init__(self, widths: tuple[int, ...] = (32, 48, 64, 96, 96)) -> None:
        super().__init__()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (before, width) in enumerate(zip((3, *widths), widths), start=1):  # noqa: B905
            blocks[f"conv{i}"] = nn.Sequential(
                nn.Conv2d(before, width, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            if i <= 3:
                blocks[f"pool{i}"] = nn.MaxPool2d(2)
        self.features = nn.Sequential(blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.features(images)).flatten(1))


def load_model() -> DemoNet:
    """The trained demo model in evaluation mode, from the weights in the package.

    Returns:
        *DemoNet*: A new model for each call, on the CPU, in float32.

    Examples::

        >>> from captum_pse.demo import Scenes
        >>> images, labels = Scenes(12).batch()
        >>> bool((load_model()(images).argmax(1) == labels).all())
        True
    """
    from safetensors.torch import load

    model = DemoNet()
    weights = resources.files("captum_pse.demo").joinpath(WEIGHTS).read_bytes()
    model.load_state_dict(load(weights))
    return model.eval()
