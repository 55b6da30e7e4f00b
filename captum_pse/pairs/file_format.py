"""The file format of adversarial pairs of images: .npz and .safetensors.

An ``.npz`` or ``.safetensors`` file holds these arrays:

- ``natural``: images ``(N, C, H, W)``, uint8, or floating point in [0, 1]
- ``adversarial``: images of the same shape, uint8 or floating point in [0, 1]; or
  instead ``perturbation``, floating point, added to ``natural`` in [0, 1]
- ``true_label`` and ``attack_label``: integers ``(N,)``
- ``name``: strings ``(N,)``, optional, .npz only
- ``succeeded``: bool ``(N,)``, optional
- ``captum_pse_digest``: text, optional: the digest of all other arrays, checked when
  the file is read. A .safetensors file has it in its metadata. Leave it out of a file
  that you write or change yourself.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_pse._io.checked import (
    DIGEST,
    check_intact,
    read_tensors,
    write_tensors,
)
from captum_pse._io.digest import digest
from captum_pse._io.files import atomic_path
from captum_pse._model.checks import check_integers

Array = npt.NDArray[Any]

#: Accepted distance of a pixel from [0, 1], for rounding.
SLACK = 1 / 255


def read_pair_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a file as keyword arguments of :class:`captum_pse.AdversarialPair`.

    Images are float32 in [0, 1].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has another format, is damaged, lacks an array, holds
            pickled objects, or its arrays do not form pairs of images.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"pairs: there is no file {path}")
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"pairs: got {path}, want a .npz or .safetensors file")
    arrays, is_intact = reader(path)
    check_intact("pairs", path, is_intact)
    wanted = ["natural", "true_label", "attack_label"]
    if "perturbation" not in arrays:
        wanted.append("adversarial")
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(
            f"pairs: {path} lacks the array(s) {', '.join(missing)}; it has "
            f"{', '.join(arrays) or 'none'}; want natural, adversarial (or "
            "perturbation), true_label and attack_label"
        )
    try:
        natural = _pixels("natural", arrays["natural"])
        if "adversarial" in arrays:
            adversarial = _pixels("adversarial", arrays["adversarial"])
        else:
            adversarial = _perturbed(natural, arrays["perturbation"])
        labels = {
            name: _labels(name, arrays[name], len(natural))
            for name in ("attack_label", "true_label")
        }
        found: dict[str, Any] = {
            "adversarial": adversarial,
            "natural": natural,
            **labels,
        }
        if "name" in arrays:
            found["names"] = _names(arrays["name"])
        if "succeeded" in arrays:
            found["succeeded"] = torch.from_numpy(arrays["succeeded"])
        return found
    except (TypeError, ValueError) as error:
        raise ValueError(f"pairs: {path}: {error}") from error


def write_pair_file(values: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes a file for :func:`read_pair_file`; see
    :meth:`captum_pse.AdversarialPair.save`."""
    path = Path(path)
    sides = ("natural", "adversarial")
    tensors: dict[str, Tensor] = {}
    for name in (*sides, "true_label", "attack_label"):
        value = values[name]
        if not isinstance(value, Tensor) or (name in sides and value.dim() != 4):
            raise ValueError(
                f"{name}: want one image input (N, C, H, W), and class labels"
            )
        tensors[name] = value.detach().cpu().contiguous()
    if values["succeeded"] is not None:
        tensors["succeeded"] = values["succeeded"].cpu()
    for name in sides:
        _in_range(name, tensors[name].float())
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".safetensors"):
        raise ValueError(f"path: got {path}, want a .npz or .safetensors file")
    with atomic_path(path) as partial:
        if suffix == ".npz":
            arrays: dict[str, Any] = {
                # numpy has no bfloat16.
                name: (x.float() if x.dtype == torch.bfloat16 else x).numpy()
                for name, x in tensors.items()
            }
            arrays["name"] = np.array([*map(str, values["names"])])
            # First, since a damaged directory may hide the arrays after some other.
            arrays = {DIGEST: np.array(digest(arrays)), **arrays}
            # An open file, not a path: numpy appends .npz to a path that ends in .NPZ.
            with partial.open("wb") as file:
                np.savez(file, **arrays)
        else:
            write_tensors(partial, {name: x.clone() for name, x in tensors.items()}, {})


def _read_npz(path: Path) -> tuple[dict[str, Array], bool | None]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not a zip file")
        # An open file, not a path: numpy leaves a damaged one open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # damaged bytes make numpy and zipfile raise anything
        if "allow_pickle" in str(error):
            reason = "holds pickled objects, which are not read"
        else:
            reason = f"is not a complete .npz file ({error})"
        raise ValueError(f"pairs: {path} {reason}") from error
    arrays = {name: a for name, a in arrays.items() if isinstance(a, np.ndarray)}
    stated = arrays.pop(DIGEST, None)
    is_intact = None if stated is None else str(stated) == digest(arrays)
    return arrays, is_intact


def _read_safetensors(path: Path) -> tuple[dict[str, Array], bool | None]:
    try:
        _, tensors, is_intact = read_tensors(path)
    except ValueError as error:
        raise ValueError(
            f"pairs: {path} is not a complete .safetensors file ({error})"
        ) from error
    arrays = {
        # numpy has no bfloat16.
        name: (x.float() if x.is_floating_point() else x).numpy()
        for name, x in tensors.items()
    }
    return arrays, is_intact


def _pixels(name: str, array: Array) -> Tensor:
    if array.ndim != 4:
        raise ValueError(f"{name}: got shape {array.shape}, want images (N, C, H, W)")
    if array.dtype == np.uint8:
        return torch.from_numpy(array) / 255
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: got {array.dtype}, want uint8 or floating point")
    return _in_range(name, torch.from_numpy(array.astype(np.float32)))


def _perturbed(natural: Tensor, perturbation: Array) -> Tensor:
    if perturbation.dtype.kind != "f" or perturbation.shape != tuple(natural.shape):
        raise ValueError(
            f"perturbation: got {perturbation.dtype} of shape {perturbation.shape}, "
            f"want floating point of shape {tuple(natural.shape)}"
        )
    delta = torch.from_numpy(perturbation.astype(np.float32))
    return _in_range("natural + perturbation", natural + delta)


def _in_range(name: str, images: Tensor) -> Tensor:
    if images.numel() and not (images.min() >= -SLACK and images.max() <= 1 + SLACK):
        raise ValueError(
            f"{name}: got values from {images.min():.4g} to {images.max():.4g}, want "
            "[0, 1]"
        )
    return images


def _labels(name: str, array: Array, n: int) -> Tensor:
    if array.dtype.kind not in "iu" or array.shape != (n,):
        raise ValueError(
            f"{name}: got {array.dtype} of shape {array.shape}, want integers ({n},)"
        )
    native = array.astype(array.dtype.newbyteorder("="))
    return check_integers(name, torch.from_numpy(native))


def _names(array: Array) -> list[str]:
    if array.dtype.kind not in "SU" or array.ndim != 1:
        raise ValueError(
            f"name: got {array.dtype} of shape {array.shape}, want strings (N,)"
        )
    decoded = np.char.decode(array) if array.dtype.kind == "S" else array
    return [str(name) for name in decoded]
