"""Adam without torch's compiler is Adam."""

import subprocess
import sys

import torch

from metarl.rl.adam import Adam


def trained(kind, **options):
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(3, 4, generator=generator).requires_grad_(),
        torch.randn(4, generator=generator).requires_grad_(),
    ]
    optimizer = kind(weights, lr=1e-2, eps=1e-5, **options)
    for _ in range(5):
        optimizer.zero_grad()
        (torch.tanh(torch.randn(8, 3, generator=generator) @ weights[0] + weights[1]) ** 2).sum().backward()
        optimizer.step()
    return [*weights, *(value for state in optimizer.state.values() for value in state.values())]


def test_it_moves_as_torch_does_to_the_bit():
    for options in ({}, {"fused": True}):
        ours, theirs = trained(Adam, **options), trained(torch.optim.Adam, **options)
        assert len(ours) == len(theirs) == 8
        assert all(torch.equal(own, other) for own, other in zip(ours, theirs, strict=True))


def test_it_leaves_the_compiler_alone():
    program = (
        "import sys, torch\nfrom metarl.rl.adam import Adam\n"
        "weight = torch.ones(3, requires_grad=True)\noptimizer = Adam([weight])\n"
        "optimizer.zero_grad()\nweight.sum().backward()\noptimizer.step()\n"
        "assert weight[0] < 1\nassert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
