"""One Hessian over two processes with uneven shards of the data, as ``torchrun`` starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from curvature_cases import cases, dense_hessian

from landscape.distributed import shard

WORKER = """
import sys
import torch
from torch import distributed as dist
sys.path.insert(0, {tests!r})
from curvature_cases import cases
from landscape import HessianOperator, extreme_eigenpairs, hutchinson_trace
from landscape.distributed import join, leave


def analyse(group):
    case = cases()["conv_batchnorm"]
    inputs, targets = case.pair
    mine = slice(0, 9) if dist.get_rank() == 0 else slice(9, 12)
    operator = HessianOperator(case.model, case.loss, (inputs[mine], targets[mine]), group=group, batch_size=4)
    matrix = operator.product(torch.eye(operator.dim, dtype=torch.float64))
    pairs = extreme_eigenpairs(operator, 3, tol=1e-9)
    trace = hutchinson_trace(operator, deflate=pairs.vectors, seed=1)
    return dict(matrix=matrix, values=pairs.values, trace=trace.value, n=operator.n_samples, loss=operator.loss)


results = analyse(join())
torch.save(results, sys.argv[1] + f"/{{dist.get_rank()}}.pt")
leave()
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_with_uneven_shards(tmp_path):
    root = Path(__file__).resolve().parent
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(tests=str(root)))
    base = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root.parent),
    }
    workers = [
        subprocess.Popen([sys.executable, script, tmp_path], env={**base, "RANK": str(rank)}) for rank in range(2)
    ]
    try:
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    case = cases()["conv_batchnorm"]
    truth = dense_hessian(case)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for result in results:
        assert (result["matrix"] - truth).abs().max() <= 1e-12
        assert result["n"] == 12
        torch.testing.assert_close(result["values"], torch.linalg.eigvalsh(truth).flip(0)[:3], rtol=1e-8, atol=1e-10)
    assert results[0]["trace"] == results[1]["trace"]
    assert torch.equal(results[0]["values"], results[1]["values"])


def test_shards_cover_every_sample_once():
    parts = [shard((torch.arange(10), torch.arange(10) * 2), rank=rank, world_size=3) for rank in range(3)]
    assert [len(part[0]) for part in parts] == [4, 3, 3]
    assert torch.equal(torch.cat([part[0] for part in parts]), torch.arange(10))
    assert torch.equal(torch.cat([part[1] for part in parts]), 2 * torch.arange(10))
