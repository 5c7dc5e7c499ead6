"""Recording demonstrations: the station as it is while a person shows the task."""

from __future__ import annotations

from collections.abc import Sequence

from perception.config import Bump, SimulatedCameraConfig
from robot.errors import BadInputError
from teleop.station import ExplorationConfig, LoadedStation, ResidualConfig

# What a perturbation pushes: sideways most, downwards less, and nothing that turns the tool or drops the block.
_REACH = {"x": 0.7, "y": 0.7, "z": 0.4}
_LONGER = 1.75  # the way back from a push takes time


def perturbed(loaded: LoadedStation, dims: Sequence[str], spread: float) -> LoadedStation:
    """Return the station with pushes added to what the person drives, so that demonstrations show the way back.

    The pushes come in bursts of some five ticks, in a fifth of the ticks (DART, Laskey et al. 2017); the log
    keeps what the person wanted apart from what was done.

    Args:
        loaded: the station.
        dims: action dimensions of its bundle.
        spread: standard deviation of a push, as a share of its greatest, 0 to 1; 0 changes nothing.

    Raises:
        BadInputError: the spread is out of range.
    """
    if not 0.0 <= spread <= 1.0:
        raise BadInputError(f"--perturb {spread}: allowed 0 to 1; 0.6 is what the shipped policy was trained with")
    if spread == 0.0:
        return loaded
    station = loaded.station
    changed = station.model_copy(
        update={
            "operator": station.operator.model_copy(update={"perturb": True}),
            "exploration": ExplorationConfig(start=spread, end=spread, burst_share=0.2, burst_ticks=5),
            "residual": ResidualConfig(scale=tuple(_REACH.get(dim, 0.0) for dim in dims)),
            "episode": station.episode.model_copy(update={"timeout_s": _LONGER * station.episode.timeout_s}),
        }
    )
    return LoadedStation(station=changed, path=loaded.path)


def unbumped(loaded: LoadedStation) -> LoadedStation:
    """Return the station with its simulated cameras where their calibration says that they are."""
    cameras = tuple(
        camera.model_copy(update={"bump": Bump()}) if isinstance(camera, SimulatedCameraConfig) else camera
        for camera in loaded.station.camera
    )
    return LoadedStation(station=loaded.station.model_copy(update={"camera": cameras}), path=loaded.path)
