"""Batch normalisation over the batches of all processes together, on GPUs and on CPUs.

PyTorch's own ``SyncBatchNorm`` refuses CPUs, where the equality of one process and several can be tested.
Letters: B images of this process, C channels, H W cells, N = the number of B * H * W values of all processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detect.runtime.processes import num_processes


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` whose batch is that of all processes; each must call it equally often."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) normalised; in evaluation mode by the running statistics, as ever."""
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _SyncedNorm.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._remember(mean, variance * (count / (count - 1)))
        return y

    @torch.no_grad()
    def _remember(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        assert momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        self.running_var.mul_(1 - momentum).add_(unbiased_variance, alpha=momentum)


def synchronise_norms(model: nn.Module) -> None:
    """Let the norms of a model look at all processes' images, where there are several; names and values stay."""
    if num_processes() > 1:
        for layer in model.modules():
            if type(layer) is nn.BatchNorm2d:
                # Not a new module in the place of each: blocks and lists keep what they refer to.
                layer.__class__ = SyncedBatchNorm2d


class _SyncedNorm(torch.autograd.Function):
    """The norm with its exact gradient through the statistics, which all processes share.

    Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, with sums over all processes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The normalised x, and mean (C,), variance (C,) and number of the values it was normalised by."""
        mean, variance, count = _statistics(x.detach().to(weight.dtype))
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """With n the normalised x: weight * scale * (g - mean(g) - n * mean(g * n)), means over all processes."""
        x, weight, mean, scale, count = ctx.saved_tensors
        grad = grad_y.to(weight.dtype)
        normalised = (x.to(weight.dtype) - _planes(mean)) * _planes(scale)
        sum_grad, sum_grad_n = grad.sum(dim=(0, 2, 3)), (grad * normalised).sum(dim=(0, 2, 3))
        sums = torch.stack([sum_grad, sum_grad_n])
        dist.all_reduce(sums)
        mean_grad, mean_grad_n = sums / count
        grad_x = _planes(weight * scale) * (grad - _planes(mean_grad) - normalised * _planes(mean_grad_n))
        return grad_x.to(x.dtype), sum_grad_n, sum_grad, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of the values of all processes, and N.

    The squares are summed around the common mean, in a second round: sums of plain squares would cancel.
    """
    channels = x.shape[1]
    count = x.new_tensor([x.numel() / channels])
    sums = torch.cat([x.sum(dim=(0, 2, 3)), count])
    dist.all_reduce(sums)
    total, count = sums[:channels], sums[channels:]
    mean = total / count
    squares = (x - _planes(mean)).square().sum(dim=(0, 2, 3))
    dist.all_reduce(squares)
    return mean, squares / count, count


def _planes(values: Tensor) -> Tensor:
    """(C,) as (1, C, 1, 1)."""
    return values[None, :, None, None]
