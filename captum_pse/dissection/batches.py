"""Reads a concept set in batches, and whether it is the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from captum_pse._io.digest import digest
from captum_pse.dissection.concepts import ConceptDataset, ConceptSample

Samples: TypeAlias = list[ConceptSample]


class Batches:
    """The batches of one process, with a digest of the samples that were read.

    Args:
        dataset (ConceptDataset): The data set.
        indices (list[list[int]]): For each batch, the indices of its samples.
        num_workers (int): Number of processes that read samples.
        show_progress (bool): Whether to show progress bars.
    """

    def __init__(
        self,
        dataset: ConceptDataset,
        indices: list[list[int]],
        num_workers: int,
        show_progress: bool,
    ) -> None:
        self._dataset = dataset
        self._indices = indices
        self._num_workers = num_workers
        self._show_progress = show_progress
        #: The digest of the first 0, 1, 2, ... batches, as far as they were read.
        self._digests = [digest()]

    def __len__(self) -> int:
        return len(self._indices)

    def read(
        self, title: str, start: int = 0, end: int | None = None
    ) -> Iterator[tuple[int, list[int], Samples]]:
        """Reads batches in order.

        Args:
            title (str): The title of the progress bar.
            start (int, optional): The number of batches to skip, all of which were read
                before. Default: 0
            end (int, optional): The number of batches to stop after. Default: None

        Returns:
            *iterator*: The number of batches up to this one, the indices of its samples
            and the samples.

        Raises:
            ValueError: A sample differs from what was read before.
        """
        indices = self._indices[start:end]
        loader: DataLoader[tuple[Samples, str]] = DataLoader(
            self._dataset,  # type: ignore[arg-type]
            batch_sampler=indices,
            collate_fn=_with_digest,
            num_workers=self._num_workers,
            # A separate generator, so that the caller's random state is not changed.
            generator=torch.Generator(),
        )
        bar = tqdm(
            loader,
            title,
            total=start + len(indices),
            initial=start,
            unit="batch",
            disable=not self._show_progress,
        )
        for number, (samples, found) in enumerate(bar, start + 1):
            found = digest(self._digests[number - 1], found)
            rows = self._indices[number - 1]
            if number == len(self._digests):
                self._digests.append(found)
            elif self._digests[number] != found:
                raise ValueError(
                    f"dataset: got other images or labels of samples {rows[0]} to "
                    f"{rows[-1]} when they were read again, want the same each time; a "
                    "transform must not be random"
                )
            yield number, rows, samples

    def digest(self, number: int) -> str:
        """The digest of the samples of the first batches; reads those that were not
        read before."""
        read = len(self._digests) - 1
        if read < number:
            for _ in self.read("comparing samples", read, number):
                pass
        return self._digests[number]


def _with_digest(samples: Samples) -> tuple[Samples, str]:
    """The samples of a batch and their digest; runs where they are read."""
    return samples, digest(
        [
            [sample.image, {key: _numbers(x) for key, x in sample.labels.items()}]
            for sample in samples
        ]
    )


def _numbers(labels: object) -> object:
    if isinstance(labels, (Tensor, set, frozenset)):
        return labels
    return torch.as_tensor(labels)
