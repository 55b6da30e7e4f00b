"""Digests of values and of the code that runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_pse._io.manifest import versions


def digest(*values: Any) -> str:
    """The digest of values; others have another one.

    It depends on names, dtypes, shapes and every bit of numbers, but not on the device,
    on the order of a mapping or a set, or on whether a sequence is a list or a tuple.

    Args:
        *values: Plain values, bytes, tensors and arrays, and mappings, sequences and
            sets of them.

    Raises:
        TypeError: A value has another type.
    """
    hashed = hashlib.blake2b(digest_size=32)
    _add(hashed, values)
    return hashed.hexdigest()


@cache
def code_digest() -> str:
    """The digest of this package's source and of the versions that it runs with.

    Two states of the source may have one version.
    """
    folder = Path(__file__).parents[1]
    source = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.py")
    }
    return digest(versions(), source)


def _add(hashed: hashlib.blake2b, value: Any) -> None:
    # A type and a length before each part, so that no two values give the same bytes.
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        _add_bytes(hashed, type(value).__name__, repr(value).encode())
    elif isinstance(value, bytes):
        _add_bytes(hashed, "bytes", value)
    elif isinstance(value, Tensor):
        _add_bytes(hashed, f"{value.dtype} {tuple(value.shape)}", _of_tensor(value))
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        _add_bytes(hashed, f"{value.dtype.str} {value.shape}", _of_array(value))
    elif isinstance(value, Mapping):
        _add_bytes(hashed, "mapping", str(len(value)).encode())
        for key in sorted(value, key=repr):
            _add(hashed, key)
            _add(hashed, value[key])
    elif isinstance(value, AbstractSet):
        _add(hashed, ["set", *sorted(map(digest, value))])
    elif isinstance(value, Sequence):
        _add_bytes(hashed, "sequence", str(len(value)).encode())
        for item in value:
            _add(hashed, item)
    else:
        raise TypeError(f"digest: got {type(value).__name__}, want a plain value")


def _add_bytes(hashed: hashlib.blake2b, kind: str, raw: bytes | memoryview) -> None:
    hashed.update(f"{kind} {len(raw)}\n".encode())
    hashed.update(raw)


def _of_tensor(x: Tensor) -> memoryview:
    x = x.detach()
    if x.is_quantized:
        x = x.dequantize()
    x = x.to_dense().cpu().resolve_conj().resolve_neg().contiguous()
    return _of_array(x.reshape(-1).view(torch.uint8).numpy())


def _of_array(x: np.ndarray[Any, Any]) -> memoryview:
    """The bytes, which are not copied."""
    if not x.nbytes:
        return memoryview(b"")
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data
