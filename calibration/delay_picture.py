"""A picture of a delay: the correlation at every lag, and what the shifted command leaves unexplained."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from calibration.delay import Delay


def draw_delay(path: Path, found: Delay, title: str) -> None:
    """Write one PNG."""
    figure = Figure(figsize=(11.0, 6.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    above, below = figure.subplots(2, 1)
    above.plot(1e3 * found.lags_s, found.correlations, color="#2a6fbb", lw=1.2)
    above.axvline(1e3 * found.delay_s, color="#d9720b", lw=1.2)
    above.axvspan(*(1e3 * end for end in found.interval_95_s), color="#d9720b", alpha=0.25, lw=0)
    above.set(xlabel="observed comes later by [ms]", ylabel="correlation")
    above.set_title("orange: the delay and its 95 % interval", fontsize=9, loc="left")
    below.plot(found.residual_t_s, found.residual, lw=0.6)
    below.set(xlabel="time [s]", ylabel="deviations")
    below.set_title("every residual: observed less the shifted command, by channel", fontsize=9, loc="left")
    figure.savefig(path, dpi=110)
