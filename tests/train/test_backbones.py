"""train.backbones, trunks, weights: matching weights load, mismatches are listed, nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from affectdata.errors import InputError, MissingError, UsageError
from affectdata.train.backbones import load_backbone
from affectdata.train.trunks import Block, MobileNetV1, SameConv2d, same_padding

SHARED = Path(__file__).parents[3] / "shared" / "weights" / "mobilenet_v1_imagenet_12blocks.safetensors"


def _zeros(size_px: int, n: int = 1) -> np.ndarray:
    return np.zeros((n, size_px, size_px, 3), np.uint8)


@pytest.fixture
def two_blocks(tmp_path: Path) -> Path:
    """Weights of the stem and two blocks."""
    path = tmp_path / "two.safetensors"
    torch.manual_seed(1)
    save_file({key: value for key, value in MobileNetV1(2).state_dict().items() if "num_" not in key}, path)
    return path


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(224, 3, 2, (0, 1)), (225, 3, 2, (1, 1)), (7, 3, 1, (1, 1)), (5, 1, 1, (0, 0)), (6, 1, 2, (0, 0))],
)
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_stride_2_on_an_even_size_pads_right_and_bottom_only() -> None:
    layer = SameConv2d(1, 1, 3, 2)
    nn.init.ones_(layer.weight)
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0] = 1.0
    assert layer(image)[0, 0].tolist() == [[1, 0], [0, 0]]
    # Torch's padding of one pixel on every side would include the last column in two of the windows.
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 3, 3] = 1.0
    assert layer(image)[0, 0].tolist() == [[0, 0], [0, 1]]


def test_maps_halve_at_the_stem_and_at_four_blocks() -> None:
    with torch.inference_mode():
        assert MobileNetV1(12)(torch.zeros(1, 3, 224, 224)).shape == (1, 1024, 7, 7)
        assert MobileNetV1(4)(torch.zeros(1, 3, 65, 33)).shape == (1, 256, 9, 5)


def test_every_block_has_the_keys_of_the_published_file() -> None:
    keys = {key for key in Block(8, 16, 1).state_dict() if "num_" not in key}
    norm = {f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    unit = {"conv.weight", *norm}
    assert keys == {f"{part}.{key}" for part in ("depthwise", "pointwise") for key in unit}


def test_the_number_of_blocks_follows_from_the_file(two_blocks: Path) -> None:
    network = load_backbone("mobilenet_v1", str(two_blocks), "cpu")
    assert network.features(_zeros(224)).shape == (1, 128)


def test_missing_unknown_and_misshapen_keys_are_listed(two_blocks: Path) -> None:
    state = load_file(two_blocks)
    del state["stem.conv.weight"]
    state["head.weight"] = torch.zeros(2)
    state["blocks.1.pointwise.bn.bias"] = torch.zeros(3)
    save_file(state, two_blocks)
    with pytest.raises(InputError) as caught:
        load_backbone("mobilenet_v1", str(two_blocks), "cpu")
    message = str(caught.value)
    assert "missing: stem.conv.weight" in message
    assert "unknown: head.weight" in message
    assert "blocks.1.pointwise.bn.bias (3,) instead of (128,)" in message


def test_a_pickle_of_something_else_is_rejected_without_running_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "was_run"),)  # type: ignore[return-value]

    path = tmp_path / "evil.pt"
    torch.save({"a": Evil()}, path)
    with pytest.raises(InputError, match="not a weights file"):
        load_backbone("mobilenet_v1", str(path), "cpu")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors"])
def test_a_text_file_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("these are not weights")
    with pytest.raises(InputError, match="not a weights file"):
        load_backbone("mobilenet_v1", str(tmp_path / name), "cpu")


def test_a_list_of_tensors_is_rejected(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(InputError, match="does not map names to tensors"):
        load_backbone("small_cnn", str(tmp_path / "list.pt"), "cpu")


def test_the_key_depends_on_the_weights_and_not_on_the_file_format(tmp_path: Path) -> None:
    random = load_backbone("small_cnn", "none", "cpu")
    state = random.module.state_dict()
    torch.save({"state_dict": state}, tmp_path / "same.pt")
    assert load_backbone("small_cnn", str(tmp_path / "same.pt"), "cpu").key == random.key
    torch.save({key: value + 1 for key, value in state.items()}, tmp_path / "other.pt")
    assert load_backbone("small_cnn", str(tmp_path / "other.pt"), "cpu").key != random.key


def test_random_weights_are_repeatable_and_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (load_backbone("small_cnn", "none", "cpu") for _ in range(2))
    assert torch.rand(1) == expected
    assert first.key == second.key
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    assert (first.features(images) == second.features(images)).all()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_torchvision_without_its_last_layer(name: str) -> None:
    network = load_backbone(name, "none", "cpu")
    widths = {"resnet18": 512, "mobilenet_v3_small": 1024, "squeezenet1_1": 512}
    assert network.features(_zeros(network.normalisation.size_px)).shape == (1, widths[name])


def test_weights_with_a_head_for_other_classes_load(tmp_path: Path) -> None:
    network = load_backbone("resnet18", "none", "cpu")
    state = {**network.module.state_dict(), "fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "own.pt")
    assert load_backbone("resnet18", str(tmp_path / "own.pt"), "cpu").key == network.key


@pytest.mark.filterwarnings("ignore:A test tried to use socket")  # intended: the download is blocked
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mobilenet_v3_large", "DEFAULT"),
        ("mobilenet_v1", "DEFAULT"),
        ("small_cnn", "DEFAULT"),
        ("resnet18", "nowhere.pt"),
    ],
)
def test_weights_that_are_not_available(
    name: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    messages: list[str] = []
    with pytest.raises(MissingError) as caught:
        load_backbone(name, weights, "cpu", messages.append)
    assert caught.value.exit_code == 5
    assert "--weights" in caught.value.fix
    downloads = name == "mobilenet_v3_large"
    assert [("MB from https://" in message) for message in messages] == ([True] if downloads else [])


def test_an_unknown_name_gets_the_closest_one_suggested() -> None:
    with pytest.raises(UsageError, match="resnet18"):
        load_backbone("resnt18", "none", "cpu")


def test_a_device_that_is_not_available() -> None:
    with pytest.raises(MissingError, match="device 'nonsense' is not available"):
        load_backbone("small_cnn", "none", "nonsense")


USER_CODE = """
import torch
from torch import nn

class Mine(nn.Module):
    size_px = 16
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, x):
        return self.conv(x)

class NeedsWidth(nn.Module):
    def __init__(self, width):
        super().__init__()

class Infinite(Mine):
    def forward(self, x):
        return super().forward(x) / 0

class Raises(Mine):
    def forward(self, x):
        raise ValueError("no")

NotAModule = 3
"""


def test_a_users_class_is_averaged_over_positions(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(USER_CODE)
    network = load_backbone(f"{file}:Mine", "DEFAULT", "cpu")
    assert network.normalisation.size_px == 16
    assert network.features(_zeros(16, 3)).shape == (3, 4)
    file.write_text(USER_CODE.replace("self.conv(x)", "self.conv(x) * 2"))
    assert load_backbone(f"{file}:Mine", "DEFAULT", "cpu").key != network.key


@pytest.mark.parametrize(
    ("name", "error"),
    [("NeedsWidth", InputError), ("NotAModule", UsageError), ("Absent", UsageError)],
)
def test_a_users_class_that_cannot_be_built(tmp_path: Path, name: str, error: type[Exception]) -> None:
    (tmp_path / "mine.py").write_text(USER_CODE)
    with pytest.raises(error):
        load_backbone(f"{tmp_path / 'mine.py'}:{name}", "none", "cpu")


@pytest.mark.parametrize(("name", "words"), [("Infinite", "not finite"), ("Raises", "cannot process")])
def test_a_users_class_that_gives_no_features(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "mine.py").write_text(USER_CODE)
    with pytest.raises(InputError, match=words):
        load_backbone(f"{tmp_path / 'mine.py'}:{name}", "none", "cpu").features(_zeros(16))


def test_a_users_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="file not found"):
        load_backbone(f"{tmp_path / 'absent.py'}:Mine", "none", "cpu")


def test_the_real_weights_load_and_distinguish_images(image: np.ndarray) -> None:
    if not SHARED.exists():
        pytest.skip(f"no real weights at {SHARED}")
    network = load_backbone("mobilenet_v1", str(SHARED), "cpu")
    square = np.resize(image, (224, 224, 3))
    features = network.features(np.stack([square, 255 - square]))
    assert features.shape == (2, 1024)
    assert (features >= 0).all() and features.max() <= 6  # an average of ReLU6
    assert np.abs(features[0] - features[1]).max() > 0.1
