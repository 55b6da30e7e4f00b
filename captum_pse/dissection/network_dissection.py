"""NetworkDissection: the concepts that units detect, after Bau et al. 2017."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from captum_pse._model.activations import ActivationReader
from captum_pse._model.checks import check_fraction, check_int
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

    Let :math:`A_k` be the map of unit k. Its threshold :math:`T_k` is the value that it
    exceeds at the fraction ``quantile`` of all positions of all images, at the layer's
    resolution:

    .. math::
        P(A_k > T_k) = \text{quantile}.

    The mask of the unit in an image is the set of pixels at which its map exceeds the
    threshold, after bilinear upsampling (``align_corners=False``) to the size of the
    image's labels. :class:`captum_pse.Dissection` defines IoU and detectors.

    The original method aligns the upsampled maps by the receptive fields of the units.
    Here, as in its authors' later code, a map spans the image.

    Images pass through the model twice, up to the last of the layers. Only the memory
    for each unit's largest values grows with the number of images, up to
    ``memory_limit``. Under ``torchrun``, the batches are distributed over the processes
    of the default group of ``torch.distributed``, and all processes return the same
    result.

    Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection:
    Quantifying Interpretability of Deep Visual Representations", CVPR 2017,
    arXiv:1704.05796; the defaults are from there.

    Args:
        forward_func (Callable): The model in evaluation mode, or a function that calls
            it.
        layers (sequence of nn.Module or str): The layers, or their names. The output of
            a layer is ``(N, K, H, W)``, or tokens with ``grid``.
        quantile (float, optional): Fraction of positions above the threshold, in
            (0, 1). Default: 0.005
        min_iou (float, optional): A unit with a larger IoU is a detector, in [0, 1].
            Default: 0.04
        channel_dim (int, optional): The dimension of the units in the layers' outputs:
            1 for ``(N, K, ...)``, -1 for ``(N, ..., K)``. None means where the last
            convolution, linear or normalisation layer before the output has them, if
            that can be told; otherwise an error asks for it. Default: None
        grid (sequence of int, optional): The spatial size of the tokens in reading
            order, for layers whose output is tokens: ``(14, 14)`` for a vision
            transformer with 196 patches. None means that all other dimensions are
            spatial. Default: None
        num_prefix_tokens (int, optional): Number of tokens before the grid: 1 for a
            class token. Default: 0

    Raises:
        TypeError: A layer is neither a module nor a name, or ``min_iou`` is not a
            number.
        ValueError: ``layers`` is not a list, is empty, or contains a layer twice or one
            that the model does not have; ``quantile`` or ``min_iou`` is out of range.

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
        channel_dim: int | None = None,
        grid: Sequence[int] | None = None,
        num_prefix_tokens: int = 0,
    ) -> None:
        if isinstance(layers, (str, nn.Module)) or not layers:
            raise ValueError(
                f"layers: got {layers!r}, want a list of at least one layer"
            )
        if not 0 < quantile < 1:
            raise ValueError(f"quantile: got {quantile}, want more than 0, less than 1")
        self.forward_func = forward_func
        self.layers = [find_layer(forward_func, layer) for layer in layers]
        self.names = layer_names(forward_func, self.layers)
        if len(set(map(id, self.layers))) < len(self.layers):
            raise ValueError(f"layers: got {self.names}, want different ones")
        self.quantile = float(quantile)
        self.min_iou = check_fraction("min_iou", min_iou)
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
        """Dissects the layers on a concept data set.

        Args:
            dataset (ConceptDataset): Images with labels, preprocessed for the model;
                see :mod:`captum_pse.dissection`. Images may differ in size.
            batch_size (int, optional): Number of images in one pass. Default: 16
            num_workers (int, optional): Number of processes that read images, as for
                ``torch.utils.data.DataLoader``. Default: 0
            device (str or torch.device, optional): Device to which the images are
                moved; None means that of the model's parameters. Default: None
            memory_limit (int, optional): Largest memory for the values that determine
                the thresholds of one layer, in bytes. Above it, the thresholds come
                from a histogram, to 0.2 %. Default: 512 MiB
            checkpoints (str or Path, optional): A folder for partial results; needs a
                ``forward_func`` that is a ``torch.nn.Module``. An interrupted run
                resumes when the same call is repeated with the same folder. Partial
                results of another model, data set, setting, version or number of
                processes are not used: the samples that they are of are read again and
                compared, without a pass. Damaged ones are computed again, with a
                warning. The caller deletes the folder. Default: None
            show_progress (bool, optional): Whether to show progress bars.
                Default: False

        Returns:
            *Dissection*: Thresholds and counts of every unit, on the CPU.

        Raises:
            TypeError: A layer does not return one tensor, or labels are not integers.
            ValueError: The data set is empty; ``batch_size`` is not positive;
                ``num_workers`` or ``memory_limit`` is negative; a sample
                has an unknown category or number, or masks of different sizes; a
                layer's output is not ``(N, K, H, W)``; an activation is not finite; a
                sample is not the same each time it is read; or ``checkpoints`` is given
                for a function.
        """
        if len(dataset) == 0:
            raise ValueError("dataset: got an empty one, want at least one image")
        batch_size = check_int("batch_size", batch_size, 1)
        num_workers = check_int("num_workers", num_workers, 0)
        memory_limit = check_int("memory_limit", memory_limit, 0)
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
        """The masks of units in some images, at the images' resolution.

        Args:
            images (Tensor): Shape ``(N, C, H, W)``.
            result (Dissection): The dissection, which has the thresholds.
            layer (str): Name of the layer.
            units (sequence of int): Indices of the units.

        Returns:
            *Tensor*: bool ``(N, len(units), H, W)``, True where the upsampled map of a
            unit exceeds its threshold.

        Raises:
            ValueError: There is no such layer or unit.
        """
        if layer not in self.names:
            raise ValueError(f"layer: got {layer!r}, want one of {self.names}")
        module = self.layers[self.names.index(layer)]
        device = device_of(self.forward_func)
        inputs = (images.to(device),)
        with self.positions.follow() as axes:
            (maps,) = ActivationReader(self.forward_func, [module])(inputs)
        maps = self.positions.found(layer, maps, axes, inputs).maps(maps, layer)
        n_units = len(result.layers[layer].thresholds)
        units = [check_int("units", unit) for unit in units]
        if not all(0 <= unit < n_units for unit in units):
            raise ValueError(
                f"units: got {units}, want numbers from 0 to {n_units - 1}"
            )
        chosen = torch.tensor(units, dtype=torch.int64)
        thresholds = result.layers[layer].thresholds[chosen]
        wide = interpolate(
            maps[:, chosen], images.shape[2:], mode="bilinear", align_corners=False
        )
        return wide > thresholds.to(wide)[:, None, None]
