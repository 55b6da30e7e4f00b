"""Trains the demo model: ``python -m captum_pse.demo.train --out weights.safetensors``.

Training takes less than ten minutes on two cores. It reproduces the weights in the
package up to rounding.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from captum_pse._io.files import atomic_path
from captum_pse.demo.model import DemoNet
from captum_pse.demo.scenes import Scenes

N_TRAIN, N_TEST = 9600, 1200


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    correct = [
        (model(x).argmax(1) == y).sum()
        for x, y in zip(images.split(256), labels.split(256), strict=True)
    ]
    return float(sum(correct)) / len(labels)


def train(n: int = N_TRAIN, epochs: int = 12, batch_size: int = 96) -> DemoNet:
    """A model trained from scratch on scenes of seed 0."""
    from tqdm.auto import trange

    torch.manual_seed(0)
    images, labels = Scenes(n, seed=0).batch()
    model = DemoNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=6e-3, epochs=epochs, steps_per_epoch=-(-n // batch_size)
    )
    for _ in trange(epochs, desc="training", unit="epoch"):
        model.train()
        for rows in torch.randperm(n).split(batch_size):
            batch = images[rows].to(memory_format=torch.channels_last)
            loss = cross_entropy(model(batch), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    return model.to(memory_format=torch.contiguous_format).eval()


def main() -> None:
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file")
    args = parser.parse_args()
    model = train()
    print(f"test accuracy {accuracy(model, *Scenes(N_TEST, seed=1).batch()):.4f}")
    with atomic_path(args.out) as partial:
        save_file(model.state_dict(), partial)


if __name__ == "__main__":
    main()
