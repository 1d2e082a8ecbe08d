"""Muon: momentum whose steps are orthogonal matrices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial a s + b s^3 + c s^5, whose fifth iterate brings singular values from (0, 1] to about [0.7, 1.2]."""
NUM_ITERATIONS = 5
EPSILON = 1e-7
"""Smaller norms of matrices count as this. The momentum of a filter without a gradient, as on a level without objects,
decays; brought to a norm of 1 it would move the filter for ever."""
ADAM_RMS = 0.2
"""Root mean square of AdamW's usual steps, per unit of rate. Steps of this size let all groups have one rate."""


class Muon(torch.optim.AdamW):
    """Muon for the groups that are ``orthogonal``, AdamW for the others.

    A step of Muon is that of Nesterov's momentum, a matrix of outputs by inputs, with all its singular values moved
    close to 1: every direction of a filter is learned at one speed, however small its gradient.

    Args:
        groups: of parameters, with ``orthogonal`` and ``filter_groups``, into which the outputs of each parameter are
            divided (``groups`` of a convolution), and AdamW's keys. Momentum is beta1 in both.
        lr: peak rate of all groups.
        betas: of AdamW; the first is Muon's momentum.
        dtype: of the iteration, ``bfloat16`` where the device computes faster with it.

    Source: Muon (Jordan et al., 2024); Muon is scalable for LLM training (Liu et al., 2025), section 2.2, for the size
    of steps and the decay.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], dtype: torch.dtype
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        filters = [group for group in self.param_groups if group["orthogonal"]]
        gradients = {p: p.grad for group in filters for p in group["params"] if p.grad is not None}
        for parameter in gradients:
            parameter.grad = None  # AdamW leaves out parameters without a gradient
        loss = super().step(closure)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        for group in filters:
            self._step_filters(group)
        return loss

    def _step_filters(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.shape].append(parameter)
        for parameters in alike.values():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            momenta = [self._momentum(parameter) for parameter in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - group["betas"][0])
            directions = torch._foreach_lerp(gradients, momenta, group["betas"][0])
            matrices = _as_matrices(list(directions), group["filter_groups"])
            size = ADAM_RMS * max(matrices.shape[1:]) ** 0.5
            steps = orthogonalise(matrices, self.dtype).view(len(parameters), *parameters[0].shape)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, list(steps), alpha=-group["lr"] * size)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())  # AdamW expects it in every state that it loads
            state["exp_avg"] = torch.zeros_like(parameter)
        momentum: Tensor = state["exp_avg"]
        return momentum


def _as_matrices(directions: list[Tensor], filter_groups: int) -> Tensor:
    """Stack directions of one shape (outputs, inputs, ...): (n, outputs of a group, columns)."""
    outputs = directions[0].shape[0] // filter_groups
    return torch.stack(directions).reshape(len(directions) * filter_groups, outputs, -1)


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Move the singular values of matrices (n, rows, columns) close to 1, by Newton-Schulz iterations in ``dtype``.

    The matrices may have any scale above ``EPSILON``; one of zeros stays. The result has their type.

    Source: Muon (Jordan et al., 2024).
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPSILON)).to(dtype)
    # The iteration by factors multiplies small matrices only, but in bfloat16 its errors grow.
    iterate = _iterate_factor if dtype == torch.float32 and x.shape[2] >= 2 * x.shape[1] else _iterate
    x = iterate(x)
    return (x.mT if is_tall else x).to(matrices.dtype)


def _iterate(x: Tensor) -> Tensor:
    """(n, rows, columns) to (a I + b X X^T + c (X X^T)^2) X, five times."""
    for _ in range(NUM_ITERATIONS):
        x = _polynomial(x @ x.mT) @ x
    return x


def _iterate_factor(x: Tensor) -> Tensor:
    """The same: all the polynomials are of X X^T and commute, so that their product is found first."""
    gram = x @ x.mT  # (n, rows, rows)
    factor = torch.eye(gram.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(NUM_ITERATIONS):
        step = _polynomial(gram)
        factor, gram = step @ factor, step @ gram @ step
    return factor @ x


def _polynomial(gram: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    value = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    value.diagonal(dim1=1, dim2=2).add_(a)
    return value
