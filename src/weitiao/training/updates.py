"""What lies between a loss and changed weights, where PyTorch itself looks after both.

:class:`weitiao.training.zero.Zero` is the same by DeepSpeed.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from weitiao.training.checkpoint import State
from weitiao.training.optimizers import allocate_state
from weitiao.training.sharding import MicroStep
from weitiao.training.team import Team, whole


@dataclass(frozen=True, slots=True, eq=False)
class Updates:
    """Updates by the gradients of all processes; each of them changes its weights alike.

    ``unit`` computes with the model's weights, wherever they are.
    """

    unit: MicroStep
    state: State
    team: Team
    max_norm: float
    repeats: bool = True
    """Whether gradients can be forgotten, and a step begun again."""
    lean: bool = True
    """Whether weights can be read without calling the module that has them."""

    def prepare(self) -> None:
        """Let the optimizer hold its state, as it is before the first step."""
        allocate_state(self.state.optimizer)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the gradients of a micro-batch's share of the loss, the ``last`` of a step or not."""
        self.state.scaler.scale(loss).backward()

    def norm(self) -> torch.Tensor:
        """Add up the processes' gradients and clip them; return their norm before that."""
        trained = self.state.trained.values()
        self.team.sum_gradients(trained)
        self.state.scaler.unscale_(self.state.optimizer)
        return whole(torch.nn.utils.clip_grad_norm_(trained, self.max_norm))

    def step(self) -> None:
        """Change the weights."""
        self.state.optimizer.step()
        self.state.scaler.update()
        self.drop()

    def drop(self) -> None:
        """Forget the gradients."""
        self.state.optimizer.zero_grad(set_to_none=True)

    def put_back(self) -> None:
        """Let go of weights that other processes hold, after a pass without gradients."""
        self.unit.put_back()

    def weights(self, model: PreTrainedModel | PeftModel) -> dict[str, torch.Tensor] | None:
        """Return all weights whole, on the leader's CPU; None where ``model`` has them itself."""
        if not self.team.sharded or isinstance(model, PeftModel):
            return None
        found: dict[int, torch.Tensor] = {}
        state = {}
        # Tied weights are one parameter of several names, and must stay one tensor.
        for name, value in model.state_dict(keep_vars=True).items():
            if id(value) not in found:
                gathered = whole(value.detach())
                found[id(value)] = gathered.cpu() if self.team.leads else gathered[:0]
            state[name] = found[id(value)]
        return state

    def save(self, folder: Path | None) -> None:
        """Write nothing: all there is to keep is in the state."""

    def load(self, folder: Path) -> None:
        """Read nothing."""
