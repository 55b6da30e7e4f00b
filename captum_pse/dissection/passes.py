"""The two passes of a dissection over its data set, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from captum_pse._io.checkpoint import Checkpoint, State, fingerprint
from captum_pse._io.distributed import rank_and_size
from captum_pse._model.activations import ActivationReader, scores_and_activations
from captum_pse._model.forward import ForwardFunc
from captum_pse._model.positions import Positions
from captum_pse.dissection.concepts import ConceptDataset, ConceptSample, Vocabulary
from captum_pse.dissection.overlaps import ConceptAreas, Counts, Overlaps
from captum_pse.dissection.thresholds import (
    Quantiles,
    TopValues,
    ValueHistogram,
    kept_for,
)

Samples: TypeAlias = list[ConceptSample]
Tensors: TypeAlias = list[Tensor]


@dataclass(frozen=True)
class Network:
    """Layers of a model, and how their outputs become maps ``(N, K, H, W)``."""

    forward_func: ForwardFunc
    layers: Sequence[nn.Module]
    names: Sequence[str]
    positions: Positions


class Run:
    """One dissection: two passes over this process's share of a data set."""

    def __init__(
        self,
        network: Network,
        quantile: float,
        dataset: ConceptDataset,
        batch_size: int,
        num_workers: int,
        device: str | torch.device | None,
        memory_limit: int,
        checkpoints: str | Path | None,
        show_progress: bool,
    ) -> None:
        self.network = network
        self.quantile = quantile
        self.dataset = dataset
        self.vocabulary = Vocabulary(dataset.concepts)
        self.reader = ActivationReader(network.forward_func, network.layers)
        self.device = torch.device(device or device_of(network.forward_func))
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
        self.probe = self._probe()
        self.run = "" if checkpoints is None else self._fingerprint(batch_size)

    def thresholds(self) -> tuple[list[Quantiles], list[Tensor]]:
        """The quantiles of each layer's units over all images."""
        units = [a.shape[1] for a in self.probe]
        seen = [a.shape[2:].numel() * len(self.dataset) for a in self.probe]
        attempt = 0
        while True:
            quantiles = [
                self._quantiles(k, kept_for(n, self.quantile), a.dtype)
                for k, n, a in zip(units, seen, self.probe, strict=True)
            ]
            see = partial(self._see, quantiles)
            self._pass(f"thresholds{attempt or ''}", see, quantiles)
            found = [q.thresholds(self.quantile) for q in quantiles]
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
            self.network.names, quantiles, activations, strict=True
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
        network, inputs = self.network, (images.to(self.device),)
        if check:
            _, values = scores_and_activations(
                network.forward_func, network.layers, inputs, differentiable=False
            )
        else:
            values = self.reader(inputs)
        return [
            network.positions.maps(value, name)
            for name, value in zip(network.names, values, strict=True)
        ]

    def _fingerprint(self, batch_size: int) -> str:
        settings = {
            "layers": self.network.names,
            "quantile": self.quantile,
            "images": len(self.dataset),
            "concepts": self.vocabulary.concepts,
            "batch_size": batch_size,
            "memory_limit": self.memory_limit,
            "size": self.size,
        }
        # What the model makes of an image tells it from any other, normalisation
        # included, and a few samples tell the data set.
        told: list[Tensor] = [*self.probe]
        for index in (len(self.dataset) // 2, len(self.dataset) - 1):
            sample = self.dataset[index]
            told += [sample.image, self.vocabulary.read(sample, index).labels]
        return fingerprint(settings, told)

    def _probe(self) -> Tensors:
        """The maps of the first image, in a whole pass that checks the layers."""
        values = self._activations(self.dataset[0].image.unsqueeze(0), check=True)
        for name, value in zip(self.network.names, values, strict=True):
            if value.dim() != 4 or len(value) != 1:
                raise ValueError(
                    f"layers: {name} has an output of shape {tuple(value.shape)} for "
                    "one image, want (1, K, H, W); see grid"
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


def device_of(forward_func: ForwardFunc) -> torch.device:
    if isinstance(forward_func, nn.Module):
        for tensor in (*forward_func.parameters(), *forward_func.buffers()):
            return tensor.device
    return torch.device("cpu")
