"""Transforms: which there are, what they may do to affect, and a seeded pipeline of them.

The one door to albumentations. Its network call at import is switched off, its arguments are checked
strictly, every `p` must be written (some default to 0.5), and each image's draws come from one stream
seeded by its row: seeded on its own, `Compose` gives every transform the same stream, which couples them.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias

import cv2
import numpy as np

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import, or it asks the network for its version
# It imports torch where that is installed, for a class that is not used here: seconds, and native threads.
_HIDDEN: dict[str, Any] = {} if "torch" in sys.modules else {"torch": None}
sys.modules.update(_HIDDEN)
import albumentations as A  # noqa: E402

for _name in _HIDDEN:
    del sys.modules[_name]

Step: TypeAlias = dict[str, dict[str, Any]]  # {TransformName: {argument: value}}
_LEAST_PX = 8  # shorter sides are enlarged before a draw
UPRIGHT_DEGREES = 20.0  # turns beyond this are refused for what stands upright


class AffectClass(StrEnum):
    """What a transform changes of an image, and so what it may do to its affect."""

    GEOMETRY = "geometry"
    CROP = "crop"
    PHOTOMETRIC = "photometric"
    COLOUR = "colour"
    OCCLUSION = "occlusion"
    NOISE = "noise"


_G, _C, _P = AffectClass.GEOMETRY, AffectClass.CROP, AffectClass.PHOTOMETRIC
_H, _O, _N = AffectClass.COLOUR, AffectClass.OCCLUSION, AffectClass.NOISE
TRANSFORMS: dict[str, AffectClass] = {
    **dict.fromkeys(("HorizontalFlip", "VerticalFlip", "Transpose", "D4", "RandomRotate90"), _G),
    **dict.fromkeys(
        ("Affine", "Rotate", "SafeRotate", "Perspective", "ElasticTransform", "GridDistortion"), _G
    ),
    **dict.fromkeys(("RandomCropFromBorders", "RandomResizedCrop", "RandomSizedCrop", "CenterCrop"), _C),
    **dict.fromkeys(("RandomBrightnessContrast", "RandomGamma", "CLAHE", "Equalize", "RandomToneCurve"), _P),
    **dict.fromkeys(
        ("HueSaturationValue", "ColorJitter", "RGBShift", "ToGray", "ToSepia", "ChannelShuffle"), _H
    ),
    **dict.fromkeys(("CoarseDropout", "GridDropout", "Erasing"), _O),
    **dict.fromkeys(
        ("GaussNoise", "ISONoise", "GaussianBlur", "MotionBlur", "MedianBlur", "ImageCompression"), _N
    ),
}
_WORDS = {_P: "brightness or contrast", _H: "colour"}
_OPT_IN = (_P, _H)  # brightness and colour carry valence themselves (Valdez & Mehrabian 1994)
_TURNS_OVER = frozenset({"VerticalFlip", "Transpose", "D4", "RandomRotate90"})
_ANGLES_OF = {"Affine": ("rotate", "shear"), "Rotate": ("limit",), "SafeRotate": ("limit",)}
_NOT_STRICT = frozenset({"MedianBlur", "RandomRotate90", "ToSepia"})  # refuse unknown arguments as they are

_CONSTANTS = {
    "interpolation": {
        "nearest": cv2.INTER_NEAREST,
        "linear": cv2.INTER_LINEAR,
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA,
        "lanczos4": cv2.INTER_LANCZOS4,
    },
    "border_mode": {
        "constant": cv2.BORDER_CONSTANT,
        "replicate": cv2.BORDER_REPLICATE,
        "reflect": cv2.BORDER_REFLECT,
        "reflect_101": cv2.BORDER_REFLECT_101,
        "wrap": cv2.BORDER_WRAP,
    },
}


# Where a transform keeps its limits: the value that changes nothing, and the span that counts as 1.
_LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "RandomBrightnessContrast": {"brightness_limit": (0, 1), "contrast_limit": (0, 1)},
    "RandomGamma": {"gamma_limit": (100, 100)},
    "ColorJitter": {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0.5)},
    "HueSaturationValue": {
        "hue_shift_limit": (0, 90),
        "sat_shift_limit": (0, 255),
        "val_shift_limit": (0, 255),
    },
    "RGBShift": {"r_shift_limit": (0, 255), "g_shift_limit": (0, 255), "b_shift_limit": (0, 255)},
}


def check_steps(steps: list[Step], allow: Mapping[Any, float]) -> Iterator[str]:
    """Say what is wrong with the steps of a pipeline: names, arguments, a `p` that is not written.

    `allow` bounds the strength (0–1) of each affect class that needs an opt-in.
    """
    for number, step in enumerate(steps):
        if len(step) != 1:
            yield f"step {number} must be one transform, not {len(step)} ({', '.join(step)})"
            continue
        name, arguments = next(iter(step.items()))
        problem = _problem(name, arguments, allow)
        if problem:
            yield f"step {number}: {problem}"


def _problem(name: str, arguments: dict[str, Any], allow: Mapping[Any, float]) -> str | None:
    if name not in TRANSFORMS:
        return f"no transform {name!r}; known: {', '.join(sorted(TRANSFORMS))}"
    if "p" not in arguments:
        return f"{name} needs its p (the chance that it is applied), it has no safe default"
    for key, names in _CONSTANTS.items():
        if key in arguments and str(arguments[key]) not in names:
            return f"{name}: {key} must be one of {', '.join(names)}, not {arguments[key]!r}"
    try:
        strength = _strength(name, _build_step(name, arguments))
    except (TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if "errors.pydantic.dev" not in line]
        return f"{name}: {' '.join(lines)}"
    affect = TRANSFORMS[name]
    if affect in _OPT_IN and affect not in allow:
        opt_in = f"`allow: {{{affect}: {strength:g}}}`"
        return f"{name} changes {_WORDS[affect]}, which carries affect itself; {opt_in} opts in"
    if affect in _OPT_IN and strength > allow[affect] + 1e-9:
        return f"{name} has strength {strength:g}, over `allow.{affect}`: {allow[affect]:g}"
    return None


def _strength(name: str, step: A.BasicTransform) -> float:
    """Return how far a photometric or colour transform may go, as a share of all it could: 0–1."""
    spans = [
        abs(end - neutral) / span
        for attribute, (neutral, span) in _LIMITS.get(name, {}).items()
        for end in getattr(step, attribute)
    ]
    return float(round(max(spans), 6)) if spans else 1.0


def _build_step(name: str, arguments: dict[str, Any]) -> A.BasicTransform:
    translated = {key: _translated(key, value) for key, value in arguments.items()}
    return getattr(A, name)(**translated, **({} if name in _NOT_STRICT else {"strict": True}))


def _translated(key: str, value: Any) -> Any:
    if key in _CONSTANTS:
        return _CONSTANTS[key][value]
    return tuple(value) if isinstance(value, list) else value


def steps_that_overturn(steps: list[Step]) -> list[str]:
    """Name the steps of a pipeline that could turn an image's up away."""
    found = []
    for step in steps:
        name, arguments = next(iter(step.items()))
        default = 0.0 if name == "Affine" else 90.0
        angles = [
            angle for key in _ANGLES_OF.get(name, ()) for angle in numbers_in(arguments.get(key, default))
        ]
        mirrored = name == "Affine" and min(numbers_in(arguments.get("scale")), default=1.0) < 0
        if name in _TURNS_OVER or mirrored or max(map(abs, angles), default=0.0) > UPRIGHT_DEGREES:
            found.append(name)
    return found


def numbers_in(value: Any) -> list[float]:
    """Return the numbers of a range that is written as one, as a pair, or by axis."""
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers_in(each)]
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Pipeline:
    """A named list of transforms; not to be shared between threads, for its random state is its own."""

    steps: list[Step]

    @cached_property
    def _compose(self) -> A.Compose:
        return A.Compose([_build_step(*next(iter(step.items()))) for step in self.steps])

    def apply(self, rgb: np.ndarray, seed: int) -> np.ndarray:
        """Return one draw, uint8 RGB, maybe of another size; the same seed gives the same draw."""
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return np.ascontiguousarray(self._compose(image=_thick(rgb))["image"])


def _thick(rgb: np.ndarray) -> np.ndarray:
    """Enlarge what is thinner than a few pixels: OpenCV's cubic warp never ends over one mirrored pixel."""
    times = -(-_LEAST_PX // min(rgb.shape[:2]))
    return rgb.repeat(times, axis=0).repeat(times, axis=1) if times > 1 else rgb
