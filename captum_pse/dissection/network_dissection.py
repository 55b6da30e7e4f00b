"""Which concepts the units of a network detect, by Bau et al. 2017."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from captum_pse._model.activations import ActivationReader
from captum_pse._model.forward import ForwardFunc
from captum_pse._model.layers import find_layer, layer_names
from captum_pse._model.positions import Positions
from captum_pse.dissection.concepts import ConceptDataset
from captum_pse.dissection.passes import Network, Run, device_of
from captum_pse.dissection.result import Dissection, LayerOverlaps
from captum_pse.dissection.thresholds import TopValues

QUANTILE = 0.005
MIN_IOU = 0.04


class NetworkDissection:
    r"""Finds the concept that each unit of some layers detects, if any.

    The threshold :math:`T_k` of unit k, whose map is :math:`A_k`, is the value that it
    exceeds at the share ``quantile`` of all positions of all images, at the layer's own
    resolution:

    .. math::
        P(A_k > T_k) = \text{quantile}.

    Its mask in an image is where its map, upsampled bilinearly
    (``align_corners=False``) to the size of the image's labels, exceeds that threshold.
    IoU and detectors are as :class:`captum_pse.Dissection` says.

    The original aligns the upsampled maps by the receptive fields of the units; here,
    as in its authors' later code, a map spans the image.

    The images pass through the model twice, up to the last of the layers. Memory does
    not grow with their number, but for each unit's largest values, up to
    ``memory_limit``. Under ``torchrun``, each process of the default group of
    ``torch.distributed`` takes its share of the batches, and all return the same.

    Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection:
    Quantifying Interpretability of Deep Visual Representations", CVPR 2017,
    arXiv:1704.05796; the defaults are theirs.

    Args:
        forward_func (Callable): The model, in evaluation mode, or a function around it.
        layers (sequence of nn.Module or str): Where to look: layers with output
            ``(N, K, H, W)``.
        quantile (float, optional): In (0, 1). Default: 0.005
        min_iou (float, optional): In [0, 1]; a detector is above it. Default: 0.04
        channel_dim (int, optional): Which dimension of the layer's output counts the
            units; -1 for transformers. Default: 1
        grid (sequence of int, optional): The spatial size of the positions, where the
            output holds them as tokens, in reading order: ``(14, 14)`` for a vision
            transformer with 196 patches. None takes the other dimensions as they are.
            Default: None
        num_prefix_tokens (int, optional): How many tokens before the grid are no part
            of it: 1 for a class token. Default: 0

    Raises:
        TypeError: A layer is neither a module nor a name.
        ValueError: ``layers`` is no list, empty, or names a layer twice or one that the
            model lacks; ``quantile`` or ``min_iou`` is out of range.

    Examples::

        >>> from captum_pse.demo import load_model
        >>> from captum_pse.demo import SceneConcepts
        >>> scenes = SceneConcepts(24)
        >>> method = NetworkDissection(load_model(), ["features.conv1"])
        >>> result = method.dissect(scenes)
        >>> unit = int(result.best("features.conv1")[0].argmax())
        >>> row = result.table()[unit]
        >>> row["concept"], row["detector"]
        ('red', True)
        >>> brightest = int(result.layers["features.conv1"].images[unit, 0])
        >>> image = scenes[brightest].image.unsqueeze(0)
        >>> mask = method.unit_masks(image, result, "features.conv1", [unit])
        >>> tuple(mask.shape), bool(mask.any())
        ((1, 1, 64, 64), True)
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layers: Sequence[nn.Module | str],
        *,
        quantile: float = QUANTILE,
        min_iou: float = MIN_IOU,
        channel_dim: int = 1,
        grid: Sequence[int] | None = None,
        num_prefix_tokens: int = 0,
    ) -> None:
        if isinstance(layers, (str, nn.Module)) or not layers:
            raise ValueError(
                f"layers: got {layers!r}, want a list of at least one layer"
            )
        if not 0 < quantile < 1:
            raise ValueError(f"quantile: got {quantile}, want more than 0, less than 1")
        if not 0 <= min_iou <= 1:
            raise ValueError(f"min_iou: got {min_iou}, want 0 to 1")
        self.forward_func = forward_func
        self.layers = [find_layer(forward_func, layer) for layer in layers]
        self.names = layer_names(forward_func, self.layers)
        if len(set(map(id, self.layers))) < len(self.layers):
            raise ValueError(f"layers: got {self.names}, want different ones")
        self.quantile = float(quantile)
        self.min_iou = float(min_iou)
        self.positions = Positions.of(channel_dim, grid, num_prefix_tokens)

    @torch.inference_mode(False)
    @torch.no_grad()
    def dissect(
        self,
        dataset: ConceptDataset,
        *,
        batch_size: int = 16,
        num_workers: int = 0,
        device: str | torch.device | None = None,
        memory_limit: int = 1 << 29,
        checkpoints: str | Path | None = None,
        show_progress: bool = False,
    ) -> Dissection:
        """Dissects the layers over a concept data set.

        Args:
            dataset (ConceptDataset): Images with labels, in the form that the model
                takes; see :mod:`captum_pse.dissection`. Images may differ in size.
            batch_size (int, optional): How many images one pass holds. Default: 16
            num_workers (int, optional): Processes that read images, as for
                ``torch.utils.data.DataLoader``. Default: 0
            device (str or torch.device, optional): Where the images go; None takes that
                of the model's parameters. Default: None
            memory_limit (int, optional): Bytes that the largest values of a layer's
                units may take. Where they would take more, its thresholds come from a
                histogram, to 0.2 %. Default: 512 MiB
            checkpoints (str or Path, optional): A folder for partial results: the same
                call with the same folder goes on where a killed one stopped. They are
                for the caller to delete. Default: None
            show_progress (bool, optional): Whether to show progress bars.
                Default: False

        Returns:
            *Dissection*: Thresholds and counts of every unit, on the CPU.

        Raises:
            TypeError: A layer does not return one tensor, or labels are no integers.
            ValueError: The data set is empty, ``batch_size`` is less than 1, a sample
                does not fit (an unknown category or number, or masks of different
                sizes), a layer's output is not ``(N, K, H, W)``, or an activation is
                not finite.
        """
        if len(dataset) == 0:
            raise ValueError("dataset: got an empty one, want at least one image")
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, want 1 or more")
        network = Network(self.forward_func, self.layers, self.names, self.positions)
        run = Run(
            network,
            self.quantile,
            dataset,
            batch_size,
            num_workers,
            device,
            memory_limit,
            checkpoints,
            show_progress,
        )
        quantiles, thresholds = run.thresholds()
        areas, overlaps = run.overlaps(thresholds)
        return Dissection(
            concepts=run.vocabulary.concepts,
            layers={
                name: LayerOverlaps(
                    thresholds=t.cpu(),
                    exact=isinstance(q, TopValues),
                    intersections=o.intersections.cpu(),
                    areas=o.areas.cpu(),
                    total=o.total.cpu(),
                    peaks=o.peaks.cpu(),
                    images=o.images.cpu(),
                )
                for name, t, q, o in zip(
                    self.names, thresholds, quantiles, overlaps, strict=True
                )
            },
            concept_areas=areas.areas.cpu(),
            category_pixels=areas.pixels.cpu(),
            n_pixels=int(areas.total),
            n_images=len(dataset),
            quantile=self.quantile,
            min_iou=self.min_iou,
        )

    @torch.no_grad()
    def unit_masks(
        self, images: Tensor, result: Dissection, layer: str, units: Sequence[int]
    ) -> Tensor:
        """Where units exceed their thresholds in some images.

        Args:
            images (Tensor): Shape ``(N, C, H, W)``.
            result (Dissection): With the thresholds.
            layer (str): Name of the layer.
            units (sequence of int): Which of its K units, from 0.

        Returns:
            *Tensor*: bool ``(N, len(units), H, W)``, at the images' resolution.

        Raises:
            ValueError: There is no such layer or unit.
        """
        if layer not in self.names:
            raise ValueError(f"layer: got {layer!r}, want one of {self.names}")
        module = self.layers[self.names.index(layer)]
        device = device_of(self.forward_func)
        (maps,) = ActivationReader(self.forward_func, [module])((images.to(device),))
        maps = self.positions.maps(maps, layer)
        n_units = len(result.layers[layer].thresholds)
        if not all(0 <= unit < n_units for unit in units):
            raise ValueError(
                f"units: got {list(units)}, want some of 0 to {n_units - 1}"
            )
        chosen = torch.tensor(list(units))
        thresholds = result.layers[layer].thresholds[chosen]
        wide = interpolate(
            maps[:, chosen], images.shape[2:], mode="bilinear", align_corners=False
        )
        return wide > thresholds.to(wide)[:, None, None]
