"""Optimisers with checked ranges, `parameters -> torch.optim.Optimizer`, to be used as `partial(adam, lr=3e-3)`.

ε is the learning rate `lr`, g the gradient of the loss with respect to θ, λ the `weight_decay`. Two forms of decay:

- L2 form (sgd, adam, rmsprop, adagrad): g ← g + λθ, the gradient of the penalty ½λ‖θ‖², before all else is done with g;
- decoupled form (adamw): θ ← (1 − ελ)θ beside the step (Loshchilov & Hutter 2019).

For sgd without momentum the two are one; with momentum or an adaptive step they differ. Both reach every parameter,
biases too; the penalties of `dl_course.training.Regularization` reach weights only.
`impl` is the implementation: "torch" is torch.optim's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.optim import Optimizer

Parameters = Iterable[nn.Parameter | dict[str, Any] | tuple[str, nn.Parameter]]
Impl = Literal["torch"]
Rate = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Lt(1)]
NonNegative = Annotated[float, Ge(0)]


def sgd(
    params: Parameters,
    *,
    lr: Rate = 0.1,
    momentum: Share = 0.0,
    nesterov: bool = False,
    weight_decay: NonNegative = 0.0,
    impl: Impl = "torch",
) -> Optimizer:
    """Stochastic gradient descent: v ← βv + g, θ ← θ − εv; Nesterov: θ ← θ − ε(g + βv)  (I2DL ch. 5, BONN ch. 6).

    momentum is β. Differs from the lectures: ε stands outside v, so that a new ε acts at once; constant, they agree.
    Nesterov's form is that of Sutskever et al. 2013, with the gradient at θ rather than at the look-ahead point.
    Raises: ValueError if Nesterov is asked for without momentum.
    """
    if nesterov and momentum == 0:
        raise ValueError(f"nesterov={nesterov} needs momentum > 0, got momentum={momentum}")
    entries: list[Any] = list(params)
    return torch.optim.SGD(
        entries, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=fusible(entries)
    )


def adam(
    params: Parameters,
    *,
    lr: Rate = 1e-3,
    betas: tuple[Share, Share] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: NonNegative = 0.0,
    amsgrad: bool = False,
    impl: Impl = "torch",
) -> Optimizer:
    """Adam: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², θ ← θ − ε·m̂/(√v̂ + δ)  (Kingma & Ba 2015, alg. 1).

    m̂ = m/(1−β₁ᵗ), v̂ = v/(1−β₂ᵗ), t counts steps from 1, eps is δ. amsgrad divides by the largest v̂ so far (Reddi et
    al. 2018). Decay in the L2 form. Differs from the lecture (I2DL ch. 5), whose correction lacks the power t.
    """
    entries: list[Any] = list(params)
    return torch.optim.Adam(
        entries,
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        fused=fusible(entries),
    )


def adamw(
    params: Parameters,
    *,
    lr: Rate = 1e-3,
    betas: tuple[Share, Share] = (0.9, 0.999),
    eps: Rate = 1e-8,
    weight_decay: NonNegative = 0.01,
    amsgrad: bool = False,
    impl: Impl = "torch",
) -> Optimizer:
    """Adam with decoupled weight decay: θ ← (1 − ελ)θ, then Adam's step (Loshchilov & Hutter 2019, alg. 2)."""
    entries: list[Any] = list(params)
    return torch.optim.AdamW(
        entries,
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        fused=fusible(entries),
    )


def rmsprop(
    params: Parameters,
    *,
    lr: Rate = 1e-3,
    alpha: Share = 0.99,
    eps: Rate = 1e-8,
    momentum: Share = 0.0,
    centered: bool = False,
    weight_decay: NonNegative = 0.0,
    impl: Impl = "torch",
) -> Optimizer:
    """RMSProp: v ← αv + (1−α)g², θ ← θ − ε·g/(√v + δ) (I2DL ch. 5).

    centered subtracts the squared mean gradient from v (Graves 2013); momentum adds u ← βu + g/(√v + δ), θ ← θ − εu.
    """
    entries: list[Any] = list(params)
    return torch.optim.RMSprop(
        entries, lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered, weight_decay=weight_decay
    )


def adagrad(
    params: Parameters,
    *,
    lr: Rate = 1e-2,
    lr_decay: NonNegative = 0.0,
    eps: Rate = 1e-10,
    weight_decay: NonNegative = 0.0,
    impl: Impl = "torch",
) -> Optimizer:
    """AdaGrad: v ← v + g², θ ← θ − ε/(1 + (t−1)η)·g/(√v + δ), η = lr_decay (Duchi et al. 2011)."""
    entries: list[Any] = list(params)
    return torch.optim.Adagrad(
        entries, lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay, fused=fusible(entries)
    )


def lbfgs(
    params: Parameters,
    *,
    lr: Rate = 1.0,
    max_iter: Annotated[int, Ge(1)] = 20,
    history_size: Annotated[int, Ge(1)] = 10,
    tolerance_grad: NonNegative = 1e-7,
    tolerance_change: NonNegative = 1e-9,
    line_search: Literal["strong_wolfe"] | None = "strong_wolfe",
    impl: Impl = "torch",
) -> Optimizer:
    """Limited-memory BFGS: Newton's step, the Hessian estimated from the last steps  (Liu & Nocedal 1989).

    One optimiser step runs up to max_iter iterations on one batch, so it is meant for full batches. Its `step` needs a
    closure that evaluates the loss again; it takes a single group of parameters and knows no weight decay.
    """
    entries: list[Any] = list(params)
    return torch.optim.LBFGS(
        entries,
        lr=lr,
        max_iter=max_iter,
        history_size=history_size,
        tolerance_grad=tolerance_grad,
        tolerance_change=tolerance_change,
        line_search_fn=line_search,
    )


def fusible(params: Iterable[Any]) -> bool | None:
    """True where torch's fused step, one kernel for all parameters, helps: floating-point parameters on the CPU.

    Elsewhere None, torch's own choice; on a GPU a fused step would forbid clipping together with precision=16-mixed.
    """
    tensors = [tensor for entry in params for tensor in _tensors(entry)]
    fits = bool(tensors) and all(t.device.type == "cpu" and t.is_floating_point() for t in tensors)
    return True if fits else None


def _tensors(entry: Any) -> Iterable[Tensor]:
    """The tensors of one entry of an optimiser's parameters: a parameter, a (name, parameter) pair, or a group."""
    if isinstance(entry, Tensor):
        return [entry]
    if isinstance(entry, tuple):
        return [entry[1]]
    group = entry["params"]
    if isinstance(group, Tensor):
        return [group]
    entry["params"] = list(group)  # a generator would be used up
    return [tensor for item in entry["params"] for tensor in _tensors(item)]
