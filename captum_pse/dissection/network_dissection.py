"""Which concepts the units of a network detect, by Bau et al. 2017."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from captum_pse._distributed import rank_and_size
from captum_pse._forward import ForwardFunc
from captum_pse._layers import (
    ActivationReader,
    find_layer,
    layer_names,
    scores_and_activations,
)
from captum_pse.dissection.checkpoint import Checkpoint, State, fingerprint
from captum_pse.dissection.concepts import ConceptDataset, ConceptSample, Vocabulary
from captum_pse.dissection.overlaps import ConceptAreas, Counts, Overlaps
from captum_pse.dissection.result import Dissection, LayerOverlaps
from captum_pse.dissection.thresholds import (
    Quantiles,
    TopValues,
    ValueHistogram,
    kept_for,
)

Samples: TypeAlias = list[ConceptSample]
Tensors: TypeAlias = list[Tensor]

QUANTILE = 0.005
MIN_IOU = 0.04


class NetworkDissection:
    r"""Finds the concept that each unit of some layers detects, if any.

    The threshold of a unit is the value that it exceeds at the share ``quantile`` of
    all positions of all images, at the layer's own resolution. Its mask in an image is
    where its map, upsampled bilinearly (``align_corners=False``) to the size of the
    image's labels, exceeds that threshold. IoU and detectors are as
    :class:`captum_pse.Dissection` says.

    The original aligns the upsampled maps by the receptive fields of the units; here,
    as in its authors' later code, a map spans the image.

    The images pass through the model twice, up to the last of the layers. Memory does
    not grow with their number, but for each unit's largest values, up to
    ``memory_limit``. Under ``torchrun``, each process of the default group of
    ``torch.distributed`` takes its share of the batches, and all return the same.

    Source: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, "Network Dissection:
    Quantifying Interpretability of Deep Visual Representations", CVPR 2017.

    Args:
        forward_func (Callable): The model, in evaluation mode, or a function around it.
        layers (sequence of nn.Module or str): Where to look: layers with output
            ``(N, K, H, W)``.
        quantile (float, optional): In (0, 1). Default: 0.005
        min_iou (float, optional): In [0, 1]; a detector is above it. Default: 0.04
        reshape_transform (Callable, optional): Makes ``(N, K, H, W)`` of a layer's
            output where it is something else. Default: None

    Raises:
        TypeError, ValueError: An argument does not fit.

    Examples::

        >>> from captum_pse.demo import load_model
        >>> from captum_pse.dissection import SceneConcepts
        >>> method = NetworkDissection(load_model(), ["features.conv1"])
        >>> result = method.dissect(SceneConcepts(24))
        >>> result.summary()[0]["units"]
        32
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        layers: Sequence[nn.Module | str],
        *,
        quantile: float = QUANTILE,
        min_iou: float = MIN_IOU,
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
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
        self.reshape_transform = reshape_transform

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

        Raises:
            TypeError, ValueError: An argument, a sample or a layer does not fit, or an
                activation is not finite.
        """
        if len(dataset) == 0:
            raise ValueError("dataset: got an empty one, want at least one image")
        if batch_size < 1:
            raise ValueError(f"batch_size: got {batch_size}, want 1 or more")
        run = _Run(self, dataset, batch_size, num_workers, device, memory_limit,
                   checkpoints, show_progress)  # fmt: skip
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
            units (sequence of int): Which of its units.

        Returns:
            *Tensor*: bool ``(N, len(units), H, W)``, at the images' resolution.
        """
        if layer not in self.names:
            raise ValueError(f"layer: got {layer!r}, want one of {self.names}")
        module = self.layers[self.names.index(layer)]
        device = _device_of(self.forward_func)
        (maps,) = ActivationReader(self.forward_func, [module])((images.to(device),))
        if self.reshape_transform is not None:
            maps = self.reshape_transform(maps)
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


class _Run:
    """One dissection: two passes over this process's share of a data set."""

    def __init__(
        self,
        method: NetworkDissection,
        dataset: ConceptDataset,
        batch_size: int,
        num_workers: int,
        device: str | torch.device | None,
        memory_limit: int,
        checkpoints: str | Path | None,
        show_progress: bool,
    ) -> None:
        self.method = method
        self.dataset = dataset
        self.vocabulary = Vocabulary(dataset.concepts)
        self.reader = ActivationReader(method.forward_func, method.layers)
        self.device = torch.device(device or _device_of(method.forward_func))
        self.num_workers = num_workers
        self.memory_limit = memory_limit
        self.show_progress = show_progress
        self.folder = None if checkpoints is None else Path(checkpoints)
        self.rank, self.size = rank_and_size()
        whole = range(len(dataset))
        # Whole batches go to a process: how an image is batched may change its
        # activations in the last digit, and is the same for any number of processes.
        self.batches = [
            list(whole[first : first + batch_size])
            for first in range(0, len(dataset), batch_size)
        ][self.rank :: self.size]
        settings = {
            "layers": method.names,
            "quantile": method.quantile,
            "images": len(dataset),
            "concepts": self.vocabulary.concepts,
            "batch_size": batch_size,
            "memory_limit": memory_limit,
            "size": self.size,
        }
        # What the model makes of an image tells it from any other, normalisation
        # included, and a few samples tell the data set.
        self.probe = self._probe()
        told: list[Tensor] = [*self.probe]
        for index in (len(dataset) // 2, len(dataset) - 1):
            sample = dataset[index]
            told += [sample.image, self.vocabulary.read(sample, index).labels]
        self.run = fingerprint(settings, told)

    def thresholds(self) -> tuple[list[Quantiles], list[Tensor]]:
        """The quantiles of each layer's units over all images."""
        units = [a.shape[1] for a in self.probe]
        seen = [a.shape[2:].numel() * len(self.dataset) for a in self.probe]
        attempt = 0
        while True:
            quantiles = [
                self._quantiles(k, kept_for(n, self.method.quantile), a.dtype)
                for k, n, a in zip(units, seen, self.probe, strict=True)
            ]
            see = partial(self._see, quantiles)
            self._pass(f"thresholds{attempt or ''}", see, quantiles)
            found = [q.thresholds(self.method.quantile) for q in quantiles]
            thresholds = [t for t in found if t is not None]
            if len(thresholds) == len(found):
                return quantiles, thresholds
            # Later images were larger than the first; now their size is known.
            seen = [q.seen for q in quantiles]
            attempt += 1

    def overlaps(self, thresholds: list[Tensor]) -> tuple[ConceptAreas, list[Overlaps]]:
        """How units and concepts lie over one another in all images."""
        areas = ConceptAreas(self.vocabulary, self.device)
        layers = [Overlaps(t, self.vocabulary) for t in thresholds]

        def count(indices: list[int], samples: Samples, activations: Tensors) -> None:
            for i, (index, sample) in enumerate(zip(indices, samples, strict=True)):
                present = self.vocabulary.read(sample, index)
                areas.update(present)
                for layer, activation in zip(layers, activations, strict=True):
                    layer.update(activation[i], present, index)

        self._pass("overlaps", count, [areas, *layers])
        return areas, layers

    def _see(
        self,
        quantiles: list[Quantiles],
        indices: list[int],
        _: Samples,
        activations: Tensors,
    ) -> None:
        for name, q, values in zip(
            self.method.names, quantiles, activations, strict=True
        ):
            if not torch.stack(values.aminmax()).isfinite().all():
                raise ValueError(
                    f"layers: {name} gives NaN or infinite values for a sample of "
                    f"{indices[0]} to {indices[-1]}, want finite ones"
                )
            q.update(values)

    def _pass(
        self,
        name: str,
        take_in: Callable[[list[int], Samples, Tensors], None],
        parts: Sequence[Counts | Quantiles],
    ) -> None:
        """Takes in all batches of all processes, from where a killed run stopped.

        ``parts`` is what ``take_in`` changes.
        """

        def state() -> State:
            return {
                f"{i}.{key}": value
                for i, part in enumerate(parts)
                for key, value in part.state().items()
            }

        path = None
        if self.folder is not None:
            path = self.folder / f"{name}-{self.rank}-of-{self.size}.safetensors"
        checkpoint = Checkpoint(path, self.run)
        done = 0
        if saved := checkpoint.load():
            done, tensors = saved
            for i, part in enumerate(parts):
                part.restore({key: tensors[f"{i}.{key}"] for key in part.state()})
        loader: DataLoader[list[ConceptSample]] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=self.batches[done:],
            collate_fn=list,
            num_workers=self.num_workers,
            # Its own, so that the caller's random numbers stay as they are.
            generator=torch.Generator(),
        )
        bar = tqdm(
            loader,
            name,
            total=len(self.batches),
            initial=done,
            unit="batch",
            disable=not self.show_progress or self.rank > 0,
        )
        for position, samples in enumerate(bar, start=done):
            for start, end in _same_sizes(samples):
                some, indices = samples[start:end], self.batches[position][start:end]
                images = torch.stack([sample.image for sample in some])
                try:
                    activations = self._activations(images)
                except ValueError as error:
                    raise ValueError(
                        f"dataset: samples {indices[0]} to {indices[-1]}: {error}"
                    ) from error
                take_in(indices, some, activations)
            checkpoint.save(position + 1, state)
        # What this process saw, before what the others saw comes in.
        checkpoint.save(len(self.batches), state, now=True)
        for part in parts:
            part.combine()

    def _quantiles(self, n_units: int, keep: int, dtype: torch.dtype) -> Quantiles:
        exact = torch.promote_types(dtype, torch.float32)
        if n_units * keep * exact.itemsize <= self.memory_limit:
            return TopValues(n_units, keep, exact, self.device)
        return ValueHistogram(n_units, self.device)

    def _activations(self, images: Tensor, *, check: bool = False) -> Tensors:
        """Each layer's maps ``(N, K, H, W)``."""
        method, inputs = self.method, (images.to(self.device),)
        if check:
            _, values = scores_and_activations(
                method.forward_func, method.layers, inputs, differentiable=False
            )
        else:
            values = self.reader(inputs)
        if method.reshape_transform is not None:
            values = [method.reshape_transform(value) for value in values]
        return values

    def _probe(self) -> Tensors:
        """The maps of the first image, in a whole pass that checks the layers."""
        values = self._activations(self.dataset[0].image.unsqueeze(0), check=True)
        for name, value in zip(self.method.names, values, strict=True):
            if value.dim() != 4 or len(value) != 1:
                raise ValueError(
                    f"layers: {name} has an output of shape {tuple(value.shape)} for "
                    "one image, want (1, K, H, W); see reshape_transform"
                )
        return values


def _same_sizes(samples: Samples) -> Iterator[tuple[int, int]]:
    """Stretches of neighbours whose images have the same shape."""
    start = 0
    for end in range(1, len(samples) + 1):
        if (
            end == len(samples)
            or samples[end].image.shape != samples[start].image.shape
        ):
            yield start, end
            start = end


def _device_of(forward_func: ForwardFunc) -> torch.device:
    if isinstance(forward_func, nn.Module):
        for tensor in (*forward_func.parameters(), *forward_func.buffers()):
            return tensor.device
    return torch.device("cpu")
