"""What can be set of the published recipes that are here as baselines, without loading torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, kw_only=True)
class ResfitConfig:
    """Figures of ResFiT's recipe (Ankile et al. 2025).

    Attributes:
        scale: bound of the residual per action dimension, normalised.
        critics: heads of the critic.
        critic_subset: how many of them are drawn, whose least value is the target.
        hidden: sizes of the hidden layers.
        critic_rate: learning rate of the critic.
        actor_rate: learning rate of the actor.
        target_share: share of the critic that goes into its slow copy per update; the recipe leaves it open.
        smoothing: spread of the noise on the target's action (TD3); the recipe leaves it open.
        warm_up: updates before the actor learns; the recipe leaves it open.
        updates_per_actor: critic updates per update of the actor.
        value_bounds: least and greatest return of the task, which targets are clipped to; not part of the recipe, and
            unbounded when left out.
        binary: dimension of a gripper that is open or closed, so that the sign of its action is all that counts; a
            station sets it from its bundle.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # it is read from stations

    scale: tuple[Share, ...]
    critics: Positive = 10
    critic_subset: Positive = 2
    hidden: tuple[Positive, ...] = (1024, 1024)
    critic_rate: Rate = 1e-4
    actor_rate: Rate = 1e-6
    target_share: Share = 0.005
    smoothing: Annotated[float, Field(ge=0.0)] = 0.2
    updates_per_actor: Positive = 4
    warm_up: Count = 0
    value_bounds: tuple[float, float] | None = None
    binary: Count | None = None

    def __post_init__(self) -> None:
        check_subset(self.critic_subset, self.critics)


@dataclass(frozen=True, kw_only=True)
class RlpdConfig:
    """Figures of HIL-SERL's recipe (Luo et al. 2024): RLPD (Ball et al. 2023) from scratch.

    Attributes:
        critics: heads of the critic.
        critic_subset: how many of them are drawn, whose least value is the target.
        hidden: sizes of the hidden layers.
        rate: learning rate of all parts.
        target_share: share of the critic that goes into its slow copy per update.
        first_temperature: of the entropy, which is then learned.
        updates_per_actor: critic updates per update of actor and temperature.
        scale: 1 for an action dimension that is learned, 0 for one that stays still; 1 for all when empty.
        entropy_in_target: the target has the entropy of the next action, as plain soft actor-critic has it. HIL-SERL's
            has not: with a reward at the end alone, what each tick then costs or earns outweighs it.
        value_bounds: least and greatest return of the task, which targets are clipped to; not part of the recipe, and
            unbounded when left out.
        binary: dimension of a gripper that is open or closed, and chosen by value without exploration, as by HIL-SERL's
            critic of the gripper; a station sets it from its bundle.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    critics: Positive = 2
    critic_subset: Positive = 2
    hidden: tuple[Positive, ...] = (256, 256)
    rate: Rate = 3e-4
    target_share: Share = 0.005
    first_temperature: Rate = 0.01
    updates_per_actor: Positive = 2
    scale: tuple[Share, ...] = ()
    entropy_in_target: bool = False
    value_bounds: tuple[float, float] | None = None
    binary: Count | None = None

    def __post_init__(self) -> None:
        check_subset(self.critic_subset, self.critics)
        if any(bound not in (0.0, 1.0) for bound in self.scale):
            raise ValueError(f"scale is {self.scale} (allowed 0 and 1)")


def check_subset(subset: int, critics: int) -> None:
    """Raise ValueError unless so many of the critics can be drawn."""
    if not 1 <= subset <= critics:
        raise ValueError(f"critic_subset is {subset} (allowed 1 to {critics})")
