"""The meta-gradient against finite differences, and everything batched against a loop over tasks with autograd."""

import itertools
from contextlib import nullcontext

import pytest
import torch
from as_on_a_gpu import needs_cuda, on_a_gpu
from torch import nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from metarl.bench import plain_maml
from metarl.bench.plain_maml import PlainTask
from metarl.rl.functional import FlatModule
from metarl.rl.inner_loop import FixedRate, InnerLoop, LearnedRate, RecurrentRule, Stage
from metarl.rl.meta_objective import FisherProducts, MetaObjective, Sampled
from metarl.rl.networks import GaussianMlp
from metarl.rl.objectives import gaussian_log_prob
from metarl.rl.trust_region import line_search, longest_step

TASKS, STEPS, RATE = 3, 30, 0.1


class Line(nn.Module):
    """A policy of two parameters: the mean is w s + b, the standard deviation 0.6."""

    def __init__(self):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(-0.2))

    def forward(self, obs):
        return self.w * obs + self.b, torch.full((1,), 0.6, dtype=obs.dtype).log()


def inner_loop(policy, rule=FixedRate, **options):
    torch.manual_seed(1)
    policy = FlatModule(policy.double())
    made = rule(policy.size, RATE).double()
    if isinstance(made, RecurrentRule):  # at first it has no effect
        nn.init.normal_(made.output.weight, std=0.3)
    return InnerLoop(policy, FlatModule(made), **options)


def draw_stage(inner, parameters, obs_size, generator):
    """Steps that the policies with `parameters` (M, P) sample, with advantages of mean 0 and spread 1."""
    obs = torch.randn(TASKS, STEPS, obs_size, generator=generator, dtype=torch.float64)
    mean, log_std = vmap(inner.policy)(parameters, obs)
    noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    action = mean + noise * log_std[:, None].exp()
    advantage = torch.randn(TASKS, STEPS, generator=generator, dtype=torch.float64)
    weight = torch.full((TASKS, STEPS), 1.0 / (STEPS - 5), dtype=torch.float64)
    weight[:, -5:] = 0.0  # padding
    log_prob = vmap(gaussian_log_prob)(mean, log_std, action)
    return Stage(obs, action, log_prob, advantage, weight), mean, log_std


def problem(inner, num_steps=1, obs_size=1):
    """An objective whose data were sampled at the present meta-parameters, these, and the data."""
    generator = torch.Generator().manual_seed(0)
    meta, stages = inner.read(), []
    for _ in range(num_steps):
        parameters = trajectories(inner, meta, stages)[:, -1]
        stages.append(draw_stage(inner, parameters, obs_size, generator)[0])
    sampled = Sampled(*draw_stage(inner, trajectories(inner, meta, stages)[:, -1], obs_size, generator))
    return MetaObjective(inner, tuple(stages), sampled), meta, stages, sampled


def trajectories(inner, meta, stages):
    if not stages:
        return meta[: inner.policy.size].expand(TASKS, 1, -1)
    return vmap(inner.trajectory, in_dims=(None, 0))(meta, tuple(stages))


def differences(function, at, directions=None, eps=1e-5):
    """Central differences of a function of a vector along directions, one row each; by default along every axis."""
    directions = torch.eye(len(at), dtype=at.dtype) if directions is None else directions
    rows = [(function(at + eps * step) - function(at - eps * step)) / (2 * eps) for step in directions]
    return torch.stack([torch.as_tensor(row, dtype=torch.float64) for row in rows])


def directions_for(meta):
    """Every axis of a short vector; of a long one the policy's two, and three at random."""
    axes = torch.eye(len(meta), dtype=meta.dtype)
    if len(meta) <= 4:
        return axes
    drawn = torch.randn(3, len(meta), generator=torch.Generator().manual_seed(2), dtype=meta.dtype)
    return torch.cat((axes[:2], drawn / drawn.norm(dim=1, keepdim=True)))


OPTIONS = [
    pytest.param(rule, objective, steps, id=f"{rule.__name__}-{objective}-{steps}")
    for rule, objective, steps in itertools.product(
        (FixedRate, LearnedRate, RecurrentRule), ("reinforce", "lvc"), (1, 2)
    )
]


@pytest.mark.parametrize(("rule", "objective", "num_steps"), OPTIONS)
def test_the_meta_gradient_is_that_of_finite_differences(rule, objective, num_steps):
    """For one and two inner steps, of a policy of two parameters; a learned rule's own parameters included."""
    inner = inner_loop(Line(), rule, objective=objective)
    objective_, meta, _, _ = problem(inner, num_steps)
    directions = directions_for(meta)
    expected = differences(lambda at: objective_.evaluate(at)[0], meta, directions)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(directions @ objective_.gradient(meta), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_with_credit_for_exploration_the_gradient_is_that_of_finite_differences(num_steps):
    """E-MAML's term: where nothing has moved, its gradient is the credit times the mean slope of the log density."""
    inner, credit = inner_loop(Line()), torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    plain, meta, stages, sampled = problem(inner, num_steps)
    explored = MetaObjective(inner, tuple(stages), sampled, credit)
    expected = differences(lambda at: explored.evaluate(at)[0], meta, directions_for(meta))
    found = explored.gradient(meta)
    torch.testing.assert_close(directions_for(meta) @ found, expected, rtol=1e-6, atol=1e-8)
    if num_steps == 1:

        def density(at, stage):
            mean, log_std = inner.policy(at, stage.obs)
            return (stage.weight * gaussian_log_prob(mean, log_std, stage.action)).sum()

        slopes = vmap(torch.func.grad(density), in_dims=(None, 0))(meta, stages[0])
        torch.testing.assert_close(found, plain.gradient(meta) - (credit[:, None] * slopes).mean(dim=0))


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_first_order_gradient_is_another_one(num_steps):
    """It leaves out what finite differences see: a tenth of the gradient and more."""
    exact, meta, stages, sampled = problem(inner_loop(Line()), num_steps)
    first = MetaObjective(inner_loop(Line(), first_order=True), tuple(stages), sampled)
    assert exact.evaluate(meta) == first.evaluate(meta)
    difference = (exact.gradient(meta) - first.gradient(meta)).norm() / exact.gradient(meta).norm()
    assert difference > 0.1
    mean_slope = vmap(torch.func.grad(exact._surrogate))(exact._adapt(meta), sampled).mean(dim=0)
    torch.testing.assert_close(first.gradient(meta), mean_slope)


def test_the_curvature_of_the_two_inner_objectives_differs_but_not_their_gradient():
    for_one, meta, stages, sampled = problem(inner_loop(Line()))
    other = MetaObjective(inner_loop(Line(), objective="lvc"), tuple(stages), sampled)
    torch.testing.assert_close(for_one._adapt(meta), other._adapt(meta))
    assert (for_one.gradient(meta) - other.gradient(meta)).norm() > 1e-3


@pytest.mark.parametrize(("rule", "objective", "num_steps"), OPTIONS)
def test_the_fisher_product_is_the_hessian_of_the_divergence(rule, objective, num_steps):
    """Against finite differences of its gradient, whose own value is zero where the policy sampled."""
    inner = inner_loop(Line(), rule, objective=objective)
    made, meta, _, sampled = problem(inner, num_steps)

    def slope(at):
        return torch.func.grad(lambda own: vmap(made._divergence)(made._adapt(own), sampled).mean())(at)

    assert made.evaluate(meta)[1] == pytest.approx(0.0, abs=1e-15)
    torch.testing.assert_close(slope(meta), torch.zeros_like(meta))
    directions, product = directions_for(meta), made.fisher(meta)
    expected = differences(slope, meta, directions)
    assert expected.abs().max() > 1e-3
    for direction, row in zip(directions, expected, strict=True):
        torch.testing.assert_close(product(direction), row, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"objective": "lvc"}, {"first_order": True}])
@pytest.mark.parametrize("rule", [FixedRate, LearnedRate, RecurrentRule])
def test_all_tasks_at_once_are_a_loop_over_single_ones(rule, options):
    inner = inner_loop(GaussianMlp(4, 2, hidden=6, std=0.7), rule, **options)
    made, meta, stages, sampled = problem(inner, num_steps=2, obs_size=4)
    v = torch.linspace(-1, 1, len(meta), dtype=torch.float64)
    together = (*made.evaluate(meta), made.gradient(meta), made.fisher(meta)(v), made._adapt(meta))
    alone = []
    for task in range(TASKS):

        def only(x, task=task):
            return x[task : task + 1]

        single = MetaObjective(
            inner,
            tuple(Stage(*map(only, stage)) for stage in stages),
            Sampled(Stage(*map(only, sampled.stage)), only(sampled.mean), only(sampled.log_std)),
        )
        alone.append((*single.evaluate(meta), single.gradient(meta), single.fisher(meta)(v), single._adapt(meta)[0]))
    for number, all_of_them in enumerate(together):
        parts = torch.stack([torch.as_tensor(one[number], dtype=torch.float64) for one in alone])
        mean = parts if number == len(together) - 1 else parts.mean(dim=0)
        torch.testing.assert_close(torch.as_tensor(all_of_them, dtype=torch.float64), mean, rtol=1e-10, atol=1e-10)


def test_a_task_adapts_as_far_whatever_the_number_of_tasks():
    """Trap: an inner loss averaged over tasks divides the step size by their number."""
    inner = inner_loop(Line())
    made, meta, stages, _ = problem(inner)
    alone = inner.step(meta, meta[:2], torch.zeros(2, 0, dtype=torch.float64), Stage(*(x[0] for x in stages[0])))[0]
    torch.testing.assert_close(made._adapt(meta)[0], alone, rtol=1e-12, atol=1e-12)
    gradient = torch.func.grad(inner.loss)(meta, Stage(*(x[0] for x in stages[0])))
    torch.testing.assert_close(alone, meta - RATE * gradient, rtol=1e-12, atol=1e-12)


def test_only_the_adapted_parameters_move():
    mask = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for rule in (FixedRate, LearnedRate, RecurrentRule):
        inner = inner_loop(Line(), rule, adapted=mask)
        made, meta, _, _ = problem(inner)
        adapted = made._adapt(meta)
        assert torch.equal(adapted[:, 0], meta[:1].expand(TASKS))
        assert bool((adapted[:, 1] != meta[1]).all())
        directions = directions_for(meta)
        expected = differences(lambda at, made=made: made.evaluate(at)[0], meta, directions)
        torch.testing.assert_close(directions @ made.gradient(meta), expected, rtol=1e-6, atol=1e-8)


def test_a_recurrent_rule_begins_as_gradient_descent():
    torch.manual_seed(0)
    parameters, gradient = torch.randn(5), torch.randn(5)
    rule, memory = RecurrentRule(5, RATE), torch.zeros(5, RecurrentRule.memory_size)
    adapted, memory = rule(parameters, gradient, memory)
    torch.testing.assert_close(adapted, parameters - RATE * gradient)
    assert memory.abs().sum() > 0
    assert sum(p.numel() for p in rule.parameters()) == sum(p.numel() for p in RecurrentRule(500, RATE).parameters())


def test_a_recurrent_rule_does_not_see_parameters_that_do_not_adapt():
    torch.manual_seed(0)
    alone, beside = RecurrentRule(2, RATE), RecurrentRule(2, RATE)
    nn.init.normal_(alone.output.weight, std=0.3)
    beside.load_state_dict(alone.state_dict())
    parameters, gradient = torch.randn(6), torch.randn(6)
    gradient[2:] = 0.0  # as InnerLoop has it
    adapted, _ = beside(parameters, gradient, torch.zeros(6, RecurrentRule.memory_size))
    expected, _ = alone(parameters[:2], gradient[:2], torch.zeros(2, RecurrentRule.memory_size))
    torch.testing.assert_close(adapted[:2], expected)


def test_the_clipped_gradient_is_that_of_finite_differences():
    """Away from the parameters that sampled, where clips bind and policies have drifted."""
    inner = inner_loop(Line(), objective="lvc")
    made, meta, stages, sampled = problem(inner, num_steps=2)
    moved, clip, weight = meta + 0.15, 0.1, 0.5
    before = trajectories(inner, meta, stages)

    def loss(at):
        visited = trajectories(inner, at, stages)
        total = 0.0
        for task in range(TASKS):
            stage = Stage(*(x[task] for x in sampled.stage))
            ratio = (
                gaussian_log_prob(*inner.policy(visited[task, -1], stage.obs), stage.action) - stage.log_prob
            ).exp()
            clipped = torch.minimum(ratio * stage.advantage, ratio.clamp(1 - clip, 1 + clip) * stage.advantage)
            total -= float((stage.weight * clipped).sum())
            for number in range(2):
                obs, own = stages[number].obs[task], stages[number].weight[task]
                (old, log_std), (new, _) = (inner.policy(v[task, number], obs) for v in (before, visited))
                kl = ((old - new) ** 2 / (2 * log_std.exp() ** 2)).sum(dim=1)
                total += weight * float((own * kl).sum())
        return total / TASKS

    gradient = made.clipped_gradient(moved, meta, clip, weight)
    torch.testing.assert_close(gradient, differences(loss, moved), rtol=1e-6, atol=1e-8)
    unclipped = made.clipped_gradient(moved, meta, 0.999, 0.0)
    assert (gradient - unclipped).norm() > 1e-3


def test_a_meta_update_is_that_of_the_plain_loop():
    """Gradient, conjugate gradient and line search, against a loop over tasks that shares no code."""
    inner = inner_loop(GaussianMlp(4, 2, hidden=6, std=0.7))
    made, meta, stages, sampled = problem(inner, num_steps=2, obs_size=4)
    product = made.fisher(meta)
    step = longest_step(lambda v: product(v) + 1e-5 * v, made.gradient(meta), 0.01, 8)
    found = line_search(meta, step, made.evaluate, made.evaluate(meta)[0], 0.01)
    assert found.share > 0
    named = inner.policy.named(meta)
    weights = [value.clone().requires_grad_() for name, value in named.items() if name != "raw_log_std"]
    weights.append(named["raw_log_std"].clone().requires_grad_())
    tasks = [
        PlainTask(
            [{key: x[task] for key, x in stage._asdict().items()} for stage in stages],
            {key: x[task] for key, x in sampled.stage._asdict().items()}
            | {"mean": sampled.mean[task], "log_std": sampled.log_std[task]},
        )
        for task in range(TASKS)
    ]
    updated = plain_maml.update(weights, tasks, RATE, 0.01, 8, 1e-5)
    ours = inner.policy.named(found.parameters)
    for name, value in zip([n for n in ours if n != "raw_log_std"] + ["raw_log_std"], updated, strict=True):
        torch.testing.assert_close(ours[name], value.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_fisher_products_as_on_a_gpu_are_the_products(device):
    """From the second objective of the same shapes on its data lie where the first one's did; captured on CUDA only."""
    inner = inner_loop(Line())
    with nullcontext() if device == "cuda" else on_a_gpu(captures=False):
        products = FisherProducts()
        for number, num_steps in enumerate((1, 1, 1, 2, 2)):
            _, meta, stages, sampled = problem(inner, num_steps)
            stages = tuple(stage._replace(advantage=(1 + number) * stage.advantage) for stage in stages)
            stages, sampled, meta = tree_map(lambda x: x.to(device), (stages, sampled, meta + 0.1 * number))
            objective = MetaObjective(inner, stages, sampled)
            product, plain = products.of(objective, meta), objective.fisher(meta)
            for v in torch.randn(3, len(meta), dtype=meta.dtype):
                torch.testing.assert_close(product(v.to(device)), plain(v.to(device)))
            held = products._held
            assert (held is None) == (number in (0, 3))
            assert held is None or held._replay.replays == (device == "cuda")
