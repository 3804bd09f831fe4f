"""The available transforms, how they may affect ratings, and seeded pipelines of them.

The only module that imports albumentations. Its network call at import is disabled, arguments are checked
strictly, every `p` must be given (some default to 0.5), and all random draws of an image come from one stream
seeded by its row: `Compose(seed=…)` gives every transform the same stream, which correlates them.
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

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # before the import: else it looks up its version online
# It imports torch if installed, for a class that is not used here: that takes seconds and starts threads.
_HIDDEN: dict[str, Any] = {} if "torch" in sys.modules else {"torch": None}
sys.modules.update(_HIDDEN)
import albumentations as A  # noqa: E402

for _name in _HIDDEN:
    del sys.modules[_name]

Step: TypeAlias = dict[str, dict[str, Any]]  # {TransformName: {argument: value}}
_MIN_SIDE_PX = 8  # images with a shorter side are enlarged before augmentation
UPRIGHT_DEGREES = 20.0  # larger rotations are refused for images that must stay upright


class AffectClass(StrEnum):
    """The aspect of an image that a transform changes, and through it possibly the affect."""

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
_DESCRIPTIONS = {_P: "brightness or contrast", _H: "colour"}
_OPT_IN = (_P, _H)  # brightness and colour themselves influence valence (Valdez & Mehrabian 1994)
_INVERTING = frozenset({"VerticalFlip", "Transpose", "D4", "RandomRotate90"})
_ANGLE_ARGUMENTS = {"Affine": ("rotate", "shear"), "Rotate": ("limit",), "SafeRotate": ("limit",)}
_NOT_STRICT = frozenset(
    {"MedianBlur", "RandomRotate90", "ToSepia"}
)  # lack `strict`, refuse unknown arguments

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


# Attributes with the limits of a transform: the neutral value, and the distance from it that is strength 1.
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
    """Yield a message for every wrong step of a pipeline: unknown name, bad arguments, missing `p`.

    `allow` is the maximum strength (0–1) of each affect class that needs an opt-in.
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
        return f"{name} needs p, the probability that it is applied: there is no safe default"
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
        return f"{name} changes {_DESCRIPTIONS[affect]}, which itself influences affect; opt in with {opt_in}"
    if affect in _OPT_IN and strength > allow[affect] + 1e-9:
        return f"{name} has strength {strength:g}, above `allow.{affect}`: {allow[affect]:g}"
    return None


def _strength(name: str, step: A.BasicTransform) -> float:
    """Return the strength of a photometric or colour transform, as a share of its maximum: 0–1."""
    spans = [
        abs(end - neutral) / span
        for attribute, (neutral, span) in _LIMITS.get(name, {}).items()
        for end in getattr(step, attribute)
    ]
    return float(round(max(spans), 6)) if spans else 1.0


def _build_step(name: str, arguments: dict[str, Any]) -> A.BasicTransform:
    converted = {key: _convert(key, value) for key, value in arguments.items()}
    return getattr(A, name)(**converted, **({} if name in _NOT_STRICT else {"strict": True}))


def _convert(key: str, value: Any) -> Any:
    if key in _CONSTANTS:
        return _CONSTANTS[key][value]
    return tuple(value) if isinstance(value, list) else value


def find_inverting_steps(steps: list[Step]) -> list[str]:
    """Return the transforms of a pipeline that can turn an image upside down or sideways."""
    names = []
    for step in steps:
        name, arguments = next(iter(step.items()))
        default = 0.0 if name == "Affine" else 90.0
        angles = [
            angle
            for key in _ANGLE_ARGUMENTS.get(name, ())
            for angle in flatten_numbers(arguments.get(key, default))
        ]
        mirrored = name == "Affine" and min(flatten_numbers(arguments.get("scale")), default=1.0) < 0
        if name in _INVERTING or mirrored or max(map(abs, angles), default=0.0) > UPRIGHT_DEGREES:
            names.append(name)
    return names


def flatten_numbers(value: Any) -> list[float]:
    """Return the numbers of a range given as a number, as a pair, or per axis."""
    if isinstance(value, dict):
        return [number for axis in value.values() for number in flatten_numbers(axis)]
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Pipeline:
    """A list of transforms with its own random state; do not share between threads."""

    steps: list[Step]

    @cached_property
    def _compose(self) -> A.Compose:
        return A.Compose([_build_step(*next(iter(step.items()))) for step in self.steps])

    def apply(self, rgb: np.ndarray, seed: int) -> np.ndarray:
        """Return one augmented image, uint8 RGB, maybe of another size; deterministic for a seed."""
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        return np.ascontiguousarray(self._compose(image=_enlarge(rgb))["image"])


def _enlarge(rgb: np.ndarray) -> np.ndarray:
    """Enlarge very thin images: OpenCV's cubic warp never returns when it reflects a single pixel."""
    factor = -(-_MIN_SIDE_PX // min(rgb.shape[:2]))
    return rgb.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else rgb
