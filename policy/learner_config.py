"""What can be set of the update rule, without loading torch: a station's mistakes are told before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Every part can be switched, for ablation.

    Attributes:
        scale: bound of the residual per action dimension, normalised; 0 leaves a dimension to the base.
        critics: heads of the critic.
        critic_subset: heads whose least value is the target.
        hidden: sizes of the hidden layers.
        layer_norm: in the critics and the actor.
        products: type of the numbers that the hidden layers multiply; "auto" takes "bfloat16" where the layers are wide
            enough to gain by it, on a CPU that multiplies it by itself, else "float32".
        critic_rate: learning rate of the critic.
        actor_rate: learning rate of the actor.
        weight_decay: of all weights.
        target_share: share of the critic that goes into its slow copy per update.
        smoothing: spread of the noise on the target's action, share of `scale`.
        actor_every: critic updates per actor update.
        actor_after: updates before the actor learns from the critic at all.
        value_min: least return of the task; targets are clipped to it.
        value_max: greatest return of the task; targets are clipped to it.
        q_weight: weight of the critic's gradient in the actor's loss.
        imitation_weight: weight of the imitation of the person, at first.
        imitation_half_life: updates that halve it.
        imitation_floor: share of it that stays.
        q_filter: imitate only where the critic rates the person's action above the actor's.
        actor_average: share of the actor that goes into its running mean per actor update; the robot gets the mean,
            which does not jump as the actor does.
        approval_weight: weight of imitating what the robot did while a person let it, in episodes that succeeded.
        input_noise: spread of the noise on the normalised inputs that the actor learns from; corrections come from few
            layouts, and noise makes what is learned from them smooth.
        clip_unreachable: imitate the bound where the person is out of reach, instead of leaving that dimension out.
        pictures: cameras, height and width of the pictures that the features end with, None without; a station says
            what its bundle has.
        fine_tune_encoder: the actor looks at those pictures with a small encoder of its own, which learns with it (see
            `policy.picture_encoder`); without it nobody looks at them.
        use_features: `false` hides the features from actor and critics.
        gate_heads: critics that travel with the weights.
        gate: the robot adds the residual only where those critics rate it no lower than the base's own action, so the
            target does the same; a station sets it with `residual.gate`.
        scale_updates: over so many updates the bound that the robot gets grows from 0 to `scale`; 0 gives it at once.
        gripper: action dimension of the gripper head (see `policy.residual`), None without one; a station sets it
            with `residual.gripper`.
        gripper_weight: weight of that head's imitation.
        normaliser_batches: batches that the inputs' mean and spread are taken from.
        input_clip: normalised inputs are cut off there.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # it is read from stations

    scale: tuple[Share, ...]
    critics: Positive = 2
    critic_subset: Positive = 2
    hidden: tuple[Positive, ...] = (128, 128)
    layer_norm: bool = True
    products: Literal["auto", "float32", "bfloat16"] = "auto"
    critic_rate: Rate = 5e-4
    actor_rate: Rate = 1e-3
    weight_decay: Weight = 1e-4
    target_share: Share = 0.01
    smoothing: Weight = 0.2
    actor_every: Positive = 2
    actor_after: Count = 500
    value_min: float = 0.0
    value_max: float = 1.0
    q_weight: Weight = 0.01
    imitation_weight: Weight = 1.0
    imitation_half_life: Rate = 20000.0
    imitation_floor: Share = 0.1
    q_filter: bool = False
    actor_average: Share = 0.005
    approval_weight: Weight = 3.0
    input_noise: Weight = 0.25
    clip_unreachable: bool = False
    pictures: tuple[Positive, Positive, Positive] | None = None
    fine_tune_encoder: bool = False
    use_features: bool = True
    gate_heads: Count = 2
    gate: bool = False
    scale_updates: Count = 0
    gripper: Count | None = None
    gripper_weight: Weight = 0.3
    normaliser_batches: Count = 200
    input_clip: Rate = 5.0

    def __post_init__(self) -> None:
        # JSON gives lists
        object.__setattr__(self, "scale", tuple(self.scale))
        object.__setattr__(self, "hidden", tuple(self.hidden))
        if self.pictures is not None:
            object.__setattr__(self, "pictures", tuple(self.pictures))
        if self.fine_tune_encoder and self.pictures is None:
            raise ValueError(
                "fine_tune_encoder needs a bundle whose features end with pictures, and this has none; make one with "
                "launch/export_policy.py pictures BUNDLE --out DIR and set policy.bundle to it"
            )
        if not 1 <= self.critic_subset <= self.critics:
            raise ValueError(f"critic_subset is {self.critic_subset} (allowed 1 to {self.critics})")
        if self.gate and not 1 <= self.gate_heads <= self.critics:
            raise ValueError(f"gate needs gate_heads from 1 to critics ({self.critics}), got {self.gate_heads}")
        if self.gripper is not None and not (self.gripper < len(self.scale) and self.scale[self.gripper] == 0.0):
            raise ValueError(f"gripper is {self.gripper}; it must be a dimension of scale {self.scale} that is 0 there")
        if not self.value_min < self.value_max:
            raise ValueError(f"value_min {self.value_min} must be below value_max {self.value_max}")
