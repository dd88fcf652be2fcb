"""Weights as small integers that change a layer's outputs least (Frantar et al. 2022, GPTQ).

A weight w becomes ``scale · q`` with an integer q of few bits. Rounded to nearest, each error
stands alone; GPTQ (arXiv 2210.17323) rounds one input after another and corrects the weights of
the inputs still to come, by the Hessian of the layer's squared output error on real inputs.
Shapes: T tokens, O outputs, I inputs, G groups of inputs that share a scale.
"""

from dataclasses import dataclass

import torch

DAMPING = 0.01
"""Added to the Hessian's diagonal, as a share of its mean: few rows do not span all inputs.

On the embedded model 3 and 10% change nothing beyond chance, with 1 row as with 128.
"""

_AT_ONCE = 128
"""Inputs between two corrections of all that follow; the result does not depend on it."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Integers ``q_OI`` (int8) and scales ``scale_OG``; a group is ``I / G`` inputs wide."""

    q_OI: torch.Tensor
    scale_OG: torch.Tensor

    def weight(self) -> torch.Tensor:
        """Return the weight [O, I] that they stand for, in fp32."""
        wide_OGi = self.q_OI.unflatten(1, (self.scale_OG.shape[1], -1)).float()
        weight_OGi: torch.Tensor = wide_OGi * self.scale_OG.float()[..., None]
        return weight_OGi.flatten(1)


def limits(bits: int) -> tuple[int, int]:
    """Return the least and the largest integer of ``bits`` bits."""
    return -(1 << bits - 1), (1 << bits - 1) - 1


def scales(weight_OI: torch.Tensor, groups: int, bits: int, dtype: torch.dtype) -> torch.Tensor:
    """Return scales [O, G] in ``dtype`` with which each group's largest weight is reached.

    Smaller ones, searched for, lose less where weights are rounded to nearest; with GPTQ they
    gain nothing (KL of the embedded model in 4 bits 0.0036 with a search, 0.0034 without).
    """
    low, high = limits(bits)
    largest_OG = weight_OI.float().unflatten(1, (groups, -1)).abs().amax(2)
    # A group of zeros must not be divided by zero, nor weights that are next to nothing.
    step_OG: torch.Tensor = (largest_OG * 2 / (high - low)).clamp_min(torch.finfo(dtype).tiny)
    return step_OG.to(dtype)


def nearest(weight_OI: torch.Tensor, scale_OG: torch.Tensor, bits: int) -> Rounded:
    """Round every weight to the nearest integer of its scale."""
    scale_OI = scale_OG.float().repeat_interleave(weight_OI.shape[1] // scale_OG.shape[1], 1)
    q_OI = (weight_OI.float() / scale_OI).round_().clamp_(*limits(bits))
    return Rounded(q_OI.to(torch.int8), scale_OG)


def gptq(
    weight_OI: torch.Tensor, hessian_II: torch.Tensor, scale_OG: torch.Tensor, bits: int
) -> Rounded:
    """Round one input after another, and let the inputs still to come make up for it.

    The inputs with the most power go first, while most others can still make up for them (KL of
    the embedded model in 4 bits 0.0036; in their own order 0.0043). The scales are those of the
    inputs' own places, so a reader needs no order. An input that no row used is rounded to
    nearest. ``hessian_II`` is the mean of x xᵀ over the rows' tokens, fp32.
    """
    low, high = limits(bits)
    order_I = hessian_II.diagonal().argsort(descending=True, stable=True)
    upper_II = _inverse_factor(hessian_II[order_I][:, order_I])
    width = weight_OI.shape[1] // scale_OG.shape[1]
    # Transposed, so that one input's weights lie side by side.
    rest_IO = weight_OI.float().T[order_I].contiguous()
    scale_IO = scale_OG.float().T[order_I // width].contiguous()
    q_IO = torch.empty_like(rest_IO, dtype=torch.int8)
    for start in range(0, len(rest_IO), _AT_ONCE):
        here = slice(start, start + _AT_ONCE)
        errors = torch.empty_like(rest_IO[here])
        factor = upper_II[here, here]
        for i, weight_O in enumerate(rest_IO[here]):
            scale_O = scale_IO[start + i]
            whole_O = (weight_O / scale_O).round_().clamp_(low, high)
            q_IO[start + i] = whole_O.to(torch.int8)
            errors[i] = (weight_O - whole_O * scale_O) / factor[i, i]
            rest_IO[here][i + 1 :].addr_(factor[i, i + 1 :], errors[i], alpha=-1)
        rest_IO[start + _AT_ONCE :] -= upper_II[here, start + _AT_ONCE :].T @ errors
    q_OI = torch.empty_like(weight_OI, dtype=torch.int8)
    q_OI[:, order_I] = q_IO.T
    return Rounded(q_OI, scale_OG)


def _inverse_factor(hessian_II: torch.Tensor) -> torch.Tensor:
    """Return the upper Cholesky factor of the damped Hessian's inverse."""
    damping = DAMPING * float(hessian_II.diagonal().mean())
    upper_II: torch.Tensor
    while True:
        damped_II = hessian_II.clone()
        damped_II.diagonal().add_(damping or 1.0)
        lower_II, failed = torch.linalg.cholesky_ex(damped_II)
        if not failed:
            inverse_II = torch.cholesky_inverse(lower_II)
            upper_II, failed = torch.linalg.cholesky_ex(inverse_II, upper=True)
            if not failed:
                return upper_II
        # Rounding in fp32 may leave a Hessian that is not positive; more damping makes it so.
        damping *= 10


def output_error(weight_OI: torch.Tensor, rounded: Rounded, hessian_II: torch.Tensor) -> float:
    """Return the mean squared error of the outputs, as a share of their mean square."""
    whole_OI = weight_OI.float()
    lost_OI = rounded.weight() - whole_OI
    lost, whole = (float(((m @ hessian_II) * m).sum()) for m in (lost_OI, whole_OI))
    return lost / whole if whole else 0.0


def pack_int4(q_OI: torch.Tensor) -> torch.Tensor:
    """Pack integers of 4 bits into int32 [O, I / 8]: q + 8, the first in the lowest bits."""
    shift_8 = torch.arange(0, 32, 4)
    # In int64, where the eighth has no sign bit in its way; the last step takes the low 32 bits.
    words_OI8: torch.Tensor = (q_OI.unflatten(1, (-1, 8)).long() + 8) << shift_8
    return words_OI8.sum(2).to(torch.int32)
