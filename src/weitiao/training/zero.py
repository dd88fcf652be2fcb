"""Updates by DeepSpeed's ZeRO, where it is installed (Rajbhandari et al. 2020, arXiv 1910.02054).

Stage 2 spreads gradients and optimizer state over the processes, stage 3 the weights, too.
DeepSpeed clips by itself and keeps its state in files of its own, one for each process; they
are pickles, unlike all others of a run, and are read again from the run's own folder alone.
"""

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from weitiao.errors import TrainingError
from weitiao.plan.plan import Plan
from weitiao.training.sharding import MicroStep
from weitiao.training.team import Team

_TAG = "deepspeed"
"""The folder within a checkpoint that holds DeepSpeed's part of it."""


class Zero:
    """The like of :class:`weitiao.training.updates.Updates`; ``optimizer`` is DeepSpeed's."""

    repeats = False

    def __init__(
        self, unit: MicroStep, optimizer: torch.optim.Optimizer, plan: Plan, team: Team
    ) -> None:
        deepspeed = _deepspeed()
        # Names are of the weights before DeepSpeed takes them; it keeps the parameters.
        self.trained = {n: p for n, p in unit.model.named_parameters() if p.requires_grad}
        self.team = team
        # It cannot flatten a group of nothing: LoRA has no norms and biases.
        optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
        # Stage 3 gathers the weights of a module when it is called, and knows no other way.
        self.lean = plan.zero_stage == 2
        self.unit, self.optimizer, *_ = deepspeed.initialize(
            model=unit, optimizer=optimizer, config=_config(plan), dist_init_required=False
        )

    def prepare(self) -> None:
        """Do nothing: DeepSpeed lets the optimizer make its state in the first step."""

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the gradients of a micro-batch's share of the loss, the ``last`` of a step or not."""
        self.unit.set_gradient_accumulation_boundary(is_boundary=last)
        # DeepSpeed takes the mean over the processes; the loss is meant to be summed.
        self.unit.backward(loss * self.team.size)

    def norm(self) -> torch.Tensor:
        """Clip and change the weights; return the gradients' norm before that."""
        self.unit.step()
        return torch.as_tensor(self.unit.get_global_grad_norm(), dtype=torch.float32).to(
            self.unit.device
        )

    def step(self) -> None:
        """Do nothing: :meth:`norm` has changed the weights."""

    def drop(self) -> None:
        """Do nothing: DeepSpeed cannot begin a step again."""

    def put_back(self) -> None:
        """Do nothing: DeepSpeed lets go of weights by itself."""

    def weights(self, model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor]:
        """Return what is trained, whole and in fp32, on the leader's CPU."""
        gather = import_module("deepspeed.utils").safe_get_full_fp32_param
        found: dict[int, torch.Tensor] = {}
        for parameter in self.trained.values():
            gathered = gather(parameter)
            found[id(parameter)] = gathered.cpu() if self.team.leads else gathered[:0]
        names = model.state_dict(keep_vars=True)
        return {name: found[id(value)] for name, value in names.items() if id(value) in found}

    def save(self, folder: Path | None) -> None:
        """Write this process's part of the state into ``folder``; all must call."""
        self.unit.save_checkpoint(str(folder), _TAG, exclude_frozen_parameters=True)
        self.team.wait()

    def load(self, folder: Path) -> None:
        """Go on from what :meth:`save` wrote."""
        self.unit.load_checkpoint(str(folder), _TAG, load_module_strict=False)


def _deepspeed() -> Any:
    try:
        deepspeed = import_module("deepspeed")
    except ImportError as cause:
        raise TrainingError("error.deepspeed_missing") from cause
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed


def _config(plan: Plan) -> dict[str, Any]:
    return {
        # How rows become micro-batches is decided elsewhere; DeepSpeed counts one a call.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": plan.max_grad_norm,
        "bf16": {"enabled": plan.precision == "bf16"},
        "zero_optimization": {"stage": plan.zero_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 30,
    }
