"""Operations of a forward pass beyond multiply-adds, as two papers count them: SDPoint and TRD.

``detect.analysis.layers`` lists convolutions, linear layers and pools; here norms, activations and additions count too,
at PyTorch's operators, whichever module they belong to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detect.analysis.layers import OperatorRecorder, is_global
from detect.errors import InputError
from detect.models.graph import Graph
from detect.papers.sdpoint.transform import PLAIN, Instance, use_instance


@dataclass(frozen=True)
class Operations:
    """Counts of one forward pass of one image.

    Args:
        macs: multiply-adds of convolutions and linear layers.
        biases: values to which they add a bias.
        normed: values that batch norms read.
        activated: values that activations read.
        added: outputs of residual additions, and of the sums of a convolution's pieces.
        pooled: values in the windows of pools with a fixed window, max or average.
        pooled_globally: values of pools over the whole map, with windows that are one row and column too large.
    """

    macs: int = 0
    biases: int = 0
    normed: int = 0
    activated: int = 0
    added: int = 0
    pooled: int = 0
    pooled_globally: int = 0

    @property
    def sdpoint_flops(self) -> int:
        """Operations of the published counter of SDPoint (Kuen et al., 2018), section 6."""
        # Multiplications and additions count separately: 2 for each multiply-add and each value of a norm, 1 for all
        # else. An adaptive pool to one cell counts (H + 1) * (W + 1) values of an H x W map, the pool of a point
        # nothing. The published counter takes the addition of a block with an active point at the size behind the
        # point; here it counts at its own size.
        ones = self.biases + self.activated + self.added + self.pooled + self.pooled_globally
        return 2 * (self.macs + self.normed) + ones

    @property
    def trd_macs(self) -> int:
        """Multiply-adds with biases, and 2 for each value of a norm, as in Temporally Resolution Decrement."""
        # The paper's Tables 1, 3 and 4 give sums without a rule; this one is 0 to 0.8 % below its "FLOPs".
        return self.macs + self.biases + 2 * self.normed


def count_operations(graph: Graph, image_size: int, instance: Instance = PLAIN) -> Operations:
    """Count the operations of a network, without computing anything.

    Args:
        graph: on the meta device (``detect.analysis.profile.build_on_meta``); is left in evaluation mode, as the plain
            network.
        image_size: side of the square input in pixels.
        instance: the network to count (SDPoint).

    Raises:
        InputError: the network has no such point, or the size does not suit it.
    """
    use_instance(graph.eval(), instance)
    counts: Counter[str] = Counter()
    recorder = OperatorRecorder(_READERS, lambda read, args, output: counts.update(read(args, output)))
    try:
        with recorder, torch.no_grad():
            graph(torch.empty(1, 3, image_size, image_size, device="meta"))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"image size {image_size}: does not suit {graph.definition.name}: {reason}") from None
    finally:
        use_instance(graph, PLAIN)
    return Operations(**counts)


def _convolution(args: Any, output: Tensor) -> dict[str, int]:
    weight, bias = args[1], args[2]
    macs = weight.numel() * output.shape[2] * output.shape[3]
    return {"macs": macs, "biases": 0 if bias is None else output.numel()}


def _addition(args: Any, output: Tensor) -> dict[str, int]:
    # Of two maps; or of a bias to a linear layer's map, where it is an operator of its own.
    dims = [x.ndim for x in args[:2] if isinstance(x, Tensor)]
    return {"added" if dims == [4, 4] else "biases": output.numel()} if dims in ([4, 4], [4, 1]) else {}


def _pool(args: Any, output: Tensor) -> dict[str, int]:
    return {"pooled": args[1][0] * args[1][-1] * output.numel()}  # the kernel is [k] or [height, width]


def _global_pool(args: Any, output: Tensor) -> dict[str, int]:
    x = args[0]
    return {} if not is_global(x, args[1]) else {"pooled_globally": x.shape[1] * (x.shape[2] + 1) * (x.shape[3] + 1)}


_ATEN = torch.ops.aten
_ACTIVATIONS = ("relu", "leaky_relu", "silu", "mish", "sigmoid")
_READERS: dict[Any, Callable[[Any, Any], dict[str, int]]] = {
    _ATEN.convolution: _convolution,
    _ATEN.addmm: lambda args, output: {"macs": args[1].shape[0] * args[2].numel(), "biases": output.numel()},
    _ATEN.mm: lambda args, output: {"macs": args[0].shape[0] * args[1].numel()},
    _ATEN.native_batch_norm: lambda args, output: {"normed": args[0].numel()},
    _ATEN.add: _addition,
    _ATEN.max_pool2d_with_indices: lambda args, output: _pool(args, output[0]),
    _ATEN.avg_pool2d: _pool,
    _ATEN.mean: _global_pool,
    _ATEN.amax: _global_pool,
    **{
        getattr(_ATEN, name + ending): lambda args, output: {"activated": output.numel()}
        for name in _ACTIVATIONS
        for ending in ("", "_")
    },
}
