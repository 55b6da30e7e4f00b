"""Two processes give what one gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from captum_pse.demo import SceneConcepts, load_model
from captum_pse.dissection import Dissection, NetworkDissection

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys, torch
import torch.distributed as dist
from captum_pse.demo import load_model
from captum_pse.demo import SceneConcepts
from captum_pse.dissection import NetworkDissection
torch.set_num_threads(1)
dist.init_process_group("gloo")
method = NetworkDissection(load_model(), ["features.conv2", "features.conv4"])
for name, limit in (("exact", 1 << 29), ("histogram", 1)):
    result = method.dissect(SceneConcepts(20), batch_size=4, memory_limit=limit)
    result.save(f"{sys.argv[1]}/{name}-{dist.get_rank()}.safetensors")
dist.destroy_process_group()
"""


def test_two_processes_count_as_one(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", str(tmp_path / "script.py"), str(tmp_path)),
        ],
        check=True,
        capture_output=True,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        method = NetworkDissection(load_model(), ["features.conv2", "features.conv4"])
        for name, limit in (("exact", 1 << 29), ("histogram", 1)):
            alone = method.dissect(SceneConcepts(20), batch_size=4, memory_limit=limit)
            for rank in range(2):
                path = tmp_path / f"{name}-{rank}.safetensors"
                together = Dissection.load(path)
                for layer, counts in alone.layers.items():
                    for field, value in vars(counts).items():
                        got = getattr(together.layers[layer], field)
                        if isinstance(value, Tensor):
                            assert torch.equal(got, value), (name, layer, field)
                assert together.table() == alone.table()
                assert together.concept_table() == alone.concept_table()
    finally:
        torch.set_num_threads(threads)
