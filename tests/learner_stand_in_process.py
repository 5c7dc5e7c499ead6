"""`policy.learner_process` with the tiny learner of the tests."""

from __future__ import annotations

import sys

from policy.learner_process import main
from policy.learner_settings import LearnerSettings
from policy.learner_training import Learner


def make(settings: LearnerSettings) -> Learner:
    """Load torch as late as the true one does."""
    from tests.learner_stand_in import make_stand_in

    return make_stand_in(settings)


if __name__ == "__main__":
    sys.exit(main(make_learner=make))
