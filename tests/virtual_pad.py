"""A real SDL gamepad without hardware: pygame and SDL see it come, move and go as they see one on USB."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Self

import pygame._sdl2.controller

_GAMECONTROLLER = 1  # SDL_JOYSTICK_TYPE_GAMECONTROLLER: SDL maps the standard names to it by itself
_DESC_VERSION = 1
_AXES = {"leftx": 0, "lefty": 1, "rightx": 2, "righty": 3, "lefttrigger": 4, "righttrigger": 5}
_BUTTONS = {
    name: index
    for index, name in enumerate(
        ("a", "b", "x", "y", "back", "guide", "start", "leftstick", "rightstick", "leftshoulder", "rightshoulder")
    )
}


class _Guid(ctypes.Structure):
    """SDL_GUID."""

    _fields_ = (("data", ctypes.c_uint8 * 16),)


class _VirtualJoystickDesc(ctypes.Structure):
    """SDL_VirtualJoystickDesc of SDL 2.24 and later (SDL_joystick.h)."""

    _fields_ = (
        ("version", ctypes.c_uint16),
        ("type", ctypes.c_uint16),
        ("naxes", ctypes.c_uint16),
        ("nbuttons", ctypes.c_uint16),
        ("nhats", ctypes.c_uint16),
        ("vendor_id", ctypes.c_uint16),
        ("product_id", ctypes.c_uint16),
        ("padding", ctypes.c_uint16),
        ("button_mask", ctypes.c_uint32),
        ("axis_mask", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("userdata", ctypes.c_void_p),
        ("callbacks", ctypes.c_void_p * 7),
    )


def _bundled_sdl() -> ctypes.CDLL:
    """The SDL that pygame itself runs on: symbols resolve through an extension that links to it."""
    sdl = ctypes.CDLL(pygame._sdl2.controller.__file__)
    sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
    sdl.SDL_JoystickClose.argtypes = (ctypes.c_void_p,)
    sdl.SDL_JoystickSetVirtualAxis.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int16)
    sdl.SDL_JoystickSetVirtualButton.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint8)
    sdl.SDL_JoystickInstanceID.argtypes = (ctypes.c_void_p,)
    sdl.SDL_JoystickGetGUID.argtypes = (ctypes.c_void_p,)
    sdl.SDL_JoystickGetGUID.restype = _Guid
    sdl.SDL_JoystickGetGUIDString.argtypes = (_Guid, ctypes.c_char_p, ctypes.c_int)
    sdl.SDL_GetError.restype = ctypes.c_char_p
    return sdl


class VirtualPad:
    """One pad. Entering plugs it in, before or while somebody looks for pads; leaving pulls it out."""

    def __init__(self, name: str = "Test Pad", *, product_id: int = 1, buttons: int = 15) -> None:
        """Describe the pad.

        Args:
            name: what SDL calls it.
            product_id: pads of one name and number have the same GUID.
            buttons: how many it has, in SDL's order; the right shoulder is number 11.
        """
        self._sdl = _bundled_sdl()
        self._name = name.encode()
        self._product_id = product_id
        self._buttons = buttons
        self._handle: int | None = None

    def __enter__(self) -> Self:
        self.plug()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self.unplug()

    @property
    def guid(self) -> str:
        """SDL's GUID of this model."""
        text = ctypes.create_string_buffer(33)
        self._sdl.SDL_JoystickGetGUIDString(self._sdl.SDL_JoystickGetGUID(self._handle), text, len(text))
        return text.value.decode()

    def plug(self) -> None:
        """Plug it in."""
        desc = _VirtualJoystickDesc(
            version=_DESC_VERSION,
            type=_GAMECONTROLLER,
            naxes=len(_AXES),
            nbuttons=self._buttons,
            vendor_id=0x1209,
            product_id=self._product_id,
            name=self._name,
        )
        index = self._check(self._sdl.SDL_JoystickAttachVirtualEx(ctypes.byref(desc)))
        self._handle = self._sdl.SDL_JoystickOpen(index)
        self._check(-1 if self._handle is None else 0)

    def unplug(self) -> None:
        """Pull it out, whatever is held."""
        assert self._handle is not None, "the pad is not plugged in"
        instance = self._sdl.SDL_JoystickInstanceID(self._handle)
        for index in range(self._sdl.SDL_NumJoysticks()):  # none are left when a window closed before
            if self._sdl.SDL_JoystickGetDeviceInstanceID(index) == instance:
                self._check(self._sdl.SDL_JoystickDetachVirtual(index))
                break
        self._sdl.SDL_JoystickClose(self._handle)
        self._handle = None

    def press(self, *buttons: str) -> None:
        """Hold buttons down."""
        for button in buttons:
            self._check(self._sdl.SDL_JoystickSetVirtualButton(self._handle, _BUTTONS[button], 1))

    def release(self, *buttons: str) -> None:
        """Let buttons go."""
        for button in buttons:
            self._check(self._sdl.SDL_JoystickSetVirtualButton(self._handle, _BUTTONS[button], 0))

    def tap(self, button: str) -> None:
        """Press and release while nobody polls: the pad reports both, as a USB pad does between two polls."""
        self.press(button)
        self.report()
        self.release(button)
        self.report()

    def move(self, **axes: float) -> None:
        """Deflect sticks, in [-1, 1] (right and down positive), and triggers, in [0, 1]."""
        for axis, travel in axes.items():
            raw = 2.0 * travel - 1.0 if axis.endswith("trigger") else travel
            self._check(
                self._sdl.SDL_JoystickSetVirtualAxis(self._handle, _AXES[axis], round(max(raw * 32767.0, -32768.0)))
            )

    def report(self) -> None:
        """Let SDL read the pad, which queues the events without anybody taking them."""
        self._sdl.SDL_JoystickUpdate()

    def _check(self, result: int) -> int:
        if result < 0:
            raise RuntimeError(f"SDL: {self._sdl.SDL_GetError().decode()}")
        return result
