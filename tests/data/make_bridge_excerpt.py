"""Make tests/data/bridge_excerpt.h5 from the BridgeData V2 excerpts: `python make_bridge_excerpt.py SOURCE`."""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py

# one episode of the training side of the split (policy/bridge_data.py) and two of the held-out side, cut so that
# the file stays small
EPISODES = ("episode_001", "episode_009", "episode_021")
STEPS = 5
OUT = Path(__file__).with_name("bridge_excerpt.h5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="bridge_real_robot.h5")
    source = parser.parse_args().source
    with h5py.File(source) as whole, h5py.File(OUT, "w") as excerpt:
        for key, value in whole.attrs.items():
            excerpt.attrs[key] = value
        for name in EPISODES:
            group = excerpt.create_group(name)
            group.attrs["instruction"] = whole[name].attrs["instruction"]
            for key, values in whole[name].items():
                group.create_dataset(key, data=values[:STEPS], compression="gzip", compression_opts=9, shuffle=True)
    print(f"{OUT.name}: {OUT.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
