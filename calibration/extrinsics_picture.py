"""A picture of a rig's calibration: every residual, what held-out shots say, and where the cameras stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.extrinsics import Extrinsics

_COLOURS = ("#2a6fbb", "#d9720b", "#3d8c40", "#a03b6c", "#7a5ab5", "#6b6b6b", "#b59a00", "#008c95")


def draw_extrinsics(path: Path, found: Extrinsics, title: str) -> None:
    """Write one PNG: residuals of every corner by camera, by shot, held-out errors, and the rig from above."""
    figure = Figure(figsize=(13.0, 9.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(2, 2)
    _corners(axes[0, 0], found)
    _shots(axes[0, 1], found)
    _held_out(axes[1, 0], found)
    _above(axes[1, 1], found)
    figure.savefig(path, dpi=110)


def colour(camera: int) -> str:
    """Return the colour of a camera by its number."""
    return _COLOURS[camera % len(_COLOURS)]


def _corners(axes: Axes, found: Extrinsics) -> None:
    limit = max(4.0 * found.sigma_px, 0.1)
    outside = total = 0
    for number, camera in enumerate(found.cameras):
        own = np.concatenate(
            [r for one, r in zip(found.rig.sightings, found.residuals, strict=True) if one.camera == number]
        )
        axes.scatter(own[:, 0], own[:, 1], s=3, color=colour(number), linewidths=0, label=camera.name)
        outside += int((np.abs(own) > limit).any(axis=1).sum())
        total += len(own)
    axes.set(xlim=(-limit, limit), ylim=(limit, -limit), aspect="equal", xlabel="x [px]", ylabel="y [px]")
    axes.set_title(f"all residuals of the fit; {outside} of {total} lie outside", fontsize=9, loc="left")
    axes.legend(fontsize=8, markerscale=3)


def _shots(axes: Axes, found: Extrinsics) -> None:
    for number in range(len(found.cameras)):
        points = [
            (one.shot, float(np.sqrt(np.mean(np.sum(r**2, axis=1)))))
            for one, r in zip(found.rig.sightings, found.residuals, strict=True)
            if one.camera == number
        ]
        axes.plot(*zip(*points, strict=True), "o", ms=4, color=colour(number))
    for one in found.left_out:
        axes.axvline(one.shot, color=colour(one.camera), lw=1.0, ls=":")
    axes.set(xlabel="shot", ylabel="root mean square [px]", ylim=(0.0, None))
    axes.set_title("by shot; dotted: left out, as it contradicts the others", fontsize=9, loc="left")


def _held_out(axes: Axes, found: Extrinsics) -> None:
    for number in range(len(found.cameras)):
        own = [one for one in found.held_out if found.rig.sightings[one.sighting].camera == number]
        axes.plot(
            [1e3 * one.distance_m for one in own], [np.degrees(one.angle_rad) for one in own], ".", color=colour(number)
        )
    axes.set(xlabel="board's middle [mm]", ylabel="board's turn [degrees]", xlim=(0.0, None), ylim=(0.0, None))
    axes.set_title("held-out shots: one picture against the rest", fontsize=9, loc="left")


def _above(axes: Axes, found: Extrinsics) -> None:
    hands = [T for T in found.rig.T_base_hand if T is not None]
    if hands:
        places = np.array([T[:2, 3] for T in hands])
        axes.plot(places[:, 0], places[:, 1], "+", color="#999999", label="hand in each shot")
    for number, (camera, T) in enumerate(zip(found.cameras, found.T_mount_camera, strict=True)):
        shown = [T] if camera.mount == "base" else [hand @ T for hand in hands]
        for which, pose in enumerate(shown):
            tip = pose[:3, 3] + 0.12 * pose[:3, 2]
            label = camera.name if which == 0 else None
            axes.plot([pose[0, 3], tip[0]], [pose[1, 3], tip[1]], color=colour(number), lw=1.5, label=label)
            axes.plot(pose[0, 3], pose[1, 3], "o", ms=5, color=colour(number))
    axes.plot(0.0, 0.0, "s", color="#222222", ms=7)
    axes.annotate("base", (0.0, 0.0), textcoords="offset points", xytext=(8, 4), fontsize=8)
    axes.set(aspect="equal", xlabel="x [m]", ylabel="y [m]")
    axes.set_title("from above; lines point where cameras look", fontsize=9, loc="left")
    axes.legend(fontsize=8)
