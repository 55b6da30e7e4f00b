"""The two passes of a dissection over its data set, in one or several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from captum_pse._io.checkpoint import Checkpoint, State
from captum_pse._io.digest import code_digest, digest
from captum_pse._io.distributed import rank_and_size
from captum_pse._io.module_digest import module_digest
from captum_pse._model.activations import ActivationReader, scores_and_activations
from captum_pse._model.forward import ForwardFunc
from captum_pse._model.positions import Positions
from captum_pse.dissection.batches import Batches, Samples
from captum_pse.dissection.concepts import ConceptDataset, Vocabulary
from captum_pse.dissection.overlaps import ConceptAreas, Counts, Overlaps
from captum_pse.dissection.thresholds import (
    Quantiles,
    TopValues,
    ValueHistogram,
    kept_for,
)

Tensors: TypeAlias = list[Tensor]


@dataclass(frozen=True)
class Network:
    """A model, its layers, and the positions of their outputs as maps."""

    forward_func: ForwardFunc
    layers: Sequence[nn.Module]
    names: Sequence[str]
    positions: Positions


class Run:
    """One dissection: two passes over the batches of this process.

    Args: as for :class:`captum_pse.NetworkDissection` and its method ``dissect``.
    """

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
        self.memory_limit = memory_limit
        self.folder = None if checkpoints is None else Path(checkpoints)
        self.rank, self.size = rank_and_size()
        whole = range(len(dataset))
        # Processes take whole batches: the batch of an image can change its activations
        # in the last digit, so it must not depend on the number of processes.
        indices = [
            list(whole[first : first + batch_size])
            for first in range(0, len(dataset), batch_size)
        ][self.rank :: self.size]
        is_shown = show_progress and self.rank == 0
        self.batches = Batches(dataset, indices, num_workers, is_shown)
        #: Those of each layer, as the probe finds them.
        self.positions: list[Positions] = []
        self.probe = self._probe()
        self.digest = "" if checkpoints is None else self._digest(batch_size)

    def thresholds(self) -> tuple[list[Quantiles], list[Tensor]]:
        """First pass: each layer's quantiles over all images, and its thresholds."""
        units = [a.shape[1] for a in self.probe]
        seen = [a.shape[2:].numel() * len(self.dataset) for a in self.probe]
        attempt = 0
        while True:
            quantiles = [
                self._quantiles(k, kept_for(n, self.quantile), a.dtype)
                for k, n, a in zip(units, seen, self.probe, strict=True)
            ]
            add = partial(self._add, quantiles)
            kept = [[type(q).__name__, q.values.shape] for q in quantiles]
            self._pass(f"thresholds{attempt or ''}", kept, add, quantiles)
            found = [q.thresholds(self.quantile) for q in quantiles]
            thresholds = [t for t in found if t is not None]
            if len(thresholds) == len(found):
                return quantiles, thresholds
            # Later images were larger than the first. Their sizes are known now.
            seen = [q.seen for q in quantiles]
            attempt += 1

    def overlaps(self, thresholds: list[Tensor]) -> tuple[ConceptAreas, list[Overlaps]]:
        """Second pass: the areas of concepts and each layer's overlaps with them."""
        areas = ConceptAreas(self.vocabulary, self.device)
        layers = [Overlaps(t, self.vocabulary) for t in thresholds]

        def count(indices: list[int], samples: Samples, activations: Tensors) -> None:
            for i, (index, sample) in enumerate(zip(indices, samples, strict=True)):
                present = self.vocabulary.read(sample, index)
                areas.update(present)
                for layer, activation in zip(layers, activations, strict=True):
                    layer.update(activation[i], present, index)

        self._pass("overlaps", thresholds, count, [areas, *layers])
        return areas, layers

    def _add(
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
                    f"layers: got NaN or infinite values of {name} in samples "
                    f"{indices[0]} to {indices[-1]}, want finite ones"
                )
            q.update(values)

    def _pass(
        self,
        name: str,
        depends_on: Any,
        add: Callable[[list[int], Samples, Tensors], None],
        sums: Sequence[Counts | Quantiles],
    ) -> None:
        """Adds all batches to ``sums`` and combines them over processes.

        Resumes from a checkpoint, if there is one of the same run and batches.

        Args:
            name (str): Name of the checkpoint and of the progress bar.
            depends_on (Any): What the sums depend on besides the run and the batches.
            add (Callable): Adds samples with their indices and activations to ``sums``.
            sums (sequence of Counts or Quantiles): The sums.
        """

        def state() -> State:
            return {
                f"{i}.{key}": value
                for i, item in enumerate(sums)
                for key, value in item.state().items()
            }

        path = None
        if self.folder is not None:
            path = self.folder / f"{name}-{self.rank}-of-{self.size}.safetensors"
        checkpoint = Checkpoint(path, digest(self.digest, name, depends_on))
        resumed, batches = 0, self.batches
        saved = checkpoint.load()
        if saved is not None and saved.inputs == batches.digest(saved.batches):
            resumed = saved.batches
            for i, item in enumerate(sums):
                item.restore({key: saved.state[f"{i}.{key}"] for key in item.state()})
        for done, indices, samples in batches.read(name, resumed):
            for start, end in _same_sizes(samples):
                group, rows = samples[start:end], indices[start:end]
                images = torch.stack([sample.image for sample in group])
                try:
                    activations = self._activations(images)
                except ValueError as error:
                    raise ValueError(
                        f"dataset: samples {rows[0]} to {rows[-1]}: {error}"
                    ) from error
                add(rows, group, activations)
            checkpoint.save(done, batches.digest(done), state)
        # The checkpoint holds the sums of this process only.
        checkpoint.save(len(batches), batches.digest(len(batches)), state, now=True)
        for item in sums:
            item.combine()

    def _quantiles(self, n_units: int, keep: int, dtype: torch.dtype) -> Quantiles:
        exact = torch.promote_types(dtype, torch.float32)
        if n_units * keep * exact.itemsize <= self.memory_limit:
            return TopValues(n_units, keep, exact, self.device)
        return ValueHistogram(n_units, self.device)

    def _activations(self, images: Tensor, *, check: bool = False) -> Tensors:
        """Each layer's maps ``(N, K, H, W)``."""
        network, inputs = self.network, (images.to(self.device),)
        if check:
            with network.positions.follow() as axes:
                _, values = scores_and_activations(
                    network.forward_func, network.layers, inputs, differentiable=False
                )
            self.positions = [
                network.positions.found(name, value, axes, inputs)
                for name, value in zip(network.names, values, strict=True)
            ]
        else:
            values = self.reader(inputs)
        return [
            positions.maps(value, name)
            for name, value, positions in zip(
                network.names, values, self.positions, strict=True
            )
        ]

    def _digest(self, batch_size: int) -> str:
        """The digest of all that partial results depend on, except the samples."""
        network = self.network
        if not isinstance(network.forward_func, nn.Module):
            raise ValueError(
                f"checkpoints: got {self.folder} for a forward_func that is a function,"
                " want a torch.nn.Module, whose weights tell one run from another"
            )
        return digest(
            code_digest(),
            module_digest(network.forward_func),
            # What the model computes depends on more than a digest of it can see.
            self.probe,
            self.device.type,
            network.names,
            self.positions,
            self.quantile,
            self.vocabulary.concepts,
            len(self.dataset),
            batch_size,
            self.memory_limit,
            self.size,
        )

    def _probe(self) -> Tensors:
        """The maps of the first image, from a full pass that checks the layers."""
        values = self._activations(self.dataset[0].image.unsqueeze(0), check=True)
        for name, value in zip(self.network.names, values, strict=True):
            if value.dim() != 4 or len(value) != 1:
                raise ValueError(
                    f"layers: {name} has an output of shape {tuple(value.shape)} for "
                    "one image, want (1, K, H, W); see grid"
                )
        return values


def _same_sizes(samples: Samples) -> Iterator[tuple[int, int]]:
    """The start and end of each run of samples with images of the same shape."""
    start = 0
    for end in range(1, len(samples) + 1):
        if (
            end == len(samples)
            or samples[end].image.shape != samples[start].image.shape
        ):
            yield start, end
            start = end


def device_of(forward_func: ForwardFunc) -> torch.device:
    """The device of a module's first parameter or buffer; the CPU otherwise."""
    if isinstance(forward_func, nn.Module):
        for tensor in (*forward_func.parameters(), *forward_func.buffers()):
            return tensor.device
    return torch.device("cpu")
