"""The examples of docs/cameras.md are sections that a station takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pydantic import TypeAdapter

from perception.cloud_config import FusedViewConfig
from perception.config import CameraConfig

PAGE = Path(__file__).parents[1] / "docs" / "cameras.md"


def test_every_example_of_the_page_is_a_section_that_a_station_takes() -> None:
    camera: TypeAdapter[CameraConfig] = TypeAdapter(CameraConfig)
    kinds, lenses = [], []
    for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        section = tomllib.loads(block)
        for values in section.pop("camera", []):
            kinds.append(camera.validate_python(values).kind)
        if "fused_view" in section:
            kinds.append("fused_view")
            view = FusedViewConfig.model_validate(section.pop("fused_view"))
            lenses += [geometry.lens for geometry in view.geometry.values()]
        assert not section
    assert kinds == ["realsense", "uvc", "playback", "fused_view", "fused_view"]
    assert lenses == ["brown"]


def test_every_kind_is_in_the_table_of_the_page() -> None:
    table = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE))
    schema = TypeAdapter(CameraConfig).json_schema()
    assert set(schema["discriminator"]["mapping"]) <= table
