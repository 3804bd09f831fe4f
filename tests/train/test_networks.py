"""train.networks, trunks: every kind of network gets a new output layer, and nothing is guessed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from affectdata.errors import InputError, MissingError, UsageError
from affectdata.train.backbones import load_backbone
from affectdata.train.networks import build_network

EXAMPLES = Path(__file__).parents[2] / "examples" / "networks.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size_px", "n_features"),
    [
        ("small_cnn", 32, 320),
        ("mobilenet_v1:2", 32, 128),
        ("mobilenet_v3_small", 64, 1024),
        ("resnet18", 32, 512),
        ("alexnet", 64, 4096),
        ("squeezenet1_1", 32, 512),
    ],
)
def test_the_last_layer_is_replaced(name: str, size_px: int, n_features: int) -> None:
    network = build_network(name, 3, "none", size_px=size_px, device="cpu")
    assert (network.module.head.in_features, network.n_outputs) == (n_features, 3)
    with torch.inference_mode():
        assert network.module.eval()(torch.zeros(2, 3, size_px, size_px)).shape == (2, 3)


def test_the_trunk_has_the_weights_of_the_backbone(tmp_path: Path) -> None:
    state = load_backbone("resnet18", "none", "cpu").module.state_dict()
    state = {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}
    torch.save(
        {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "w.pt"
    )
    network = build_network("resnet18", 1, str(tmp_path / "w.pt"), size_px=32, device="cpu")
    trunk = network.module.body.state_dict()
    assert all((trunk[key] == value).all() for key, value in state.items())


def test_weights_of_another_network_are_rejected(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="missing: bn1"):
        build_network("resnet18", 1, str(tmp_path / "w.pt"), device="cpu")


def test_groups_hold_every_parameter_once() -> None:
    network = build_network("googlenet", 5, "none", size_px=64, device="cpu")
    groups = network.groups()
    ids = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(ids) == sorted(id(parameter) for parameter in network.module.parameters())
    # Weight and bias of the head and of the two auxiliary heads.
    assert [tuple(parameter.shape) for parameter in groups["head"]] == [(5, 1024), (5,)] + [
        (5, 1024),
        (5,),
    ] * 2


@pytest.mark.slow
def test_inception_has_its_auxiliary_head_in_training_only() -> None:
    network = build_network("inception_v3", 4, "none", device="cpu")
    x = torch.zeros(2, 3, 299, 299)
    with torch.no_grad():
        main, auxiliary = network.module.train().all_outputs(x)
        assert (main.shape, auxiliary.shape) == ((2, 4), (2, 4))
        assert len(network.module.eval().all_outputs(x)) == 1
    assert network.auxiliary_weight == 0.4


def test_the_regressors_output_joins_the_features() -> None:
    network = build_network("small_cnn", 2, "none", size_px=32, takes_output=True, device="cpu")
    module = network.module.eval()
    with torch.no_grad():
        module.head.weight.zero_()
        module.head.bias.zero_()
        module.head.weight[0, -1] = 1.0
        outputs = module(torch.zeros(2, 3, 32, 32), torch.tensor([50.0, 70.0]))
    assert outputs.tolist() == [[0, 0], [2, 0]]  # scaled by ten POMP units
    with pytest.raises(ValueError, match="but got None"):
        module(torch.zeros(2, 3, 32, 32))


def test_random_weights_depend_on_the_seed_and_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    heads = [build_network("small_cnn", 1, "none", size_px=32, seed=seed).module.head for seed in (1, 1, 2)]
    assert torch.rand(1) == expected
    assert (heads[0].weight == heads[1].weight).all()
    assert (heads[0].weight != heads[2].weight).any()


def test_counting_features_leaves_batch_norm_alone() -> None:
    network = build_network("resnet18", 1, "none", size_px=32, device="cpu")
    assert network.module.body.bn1.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("name", "size_px", "error"),
    [
        ("inception_v3", 64, InputError),
        ("resnt18", 64, UsageError),
        ("mobilenet_v1:14", 64, UsageError),
        ("mobilenet_v1:x", 64, UsageError),
        ("small_cnn", 0, UsageError),
    ],
)
def test_what_cannot_be_built(name: str, size_px: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        build_network(name, 1, "none", size_px=size_px, device="cpu")


def test_a_network_needs_an_output() -> None:
    with pytest.raises(UsageError, match="n_outputs is 0"):
        build_network("small_cnn", 0, "none")


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingError, match=r"affectdata\[train\]"):
        build_network("timm:legacy_xception", 1, "none")


def test_a_timm_network_by_name(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    network = build_network("timm:resnet10t", 2, "none", size_px=32, device="cpu")
    assert network.module.head.in_features == 512
    own = {**network.module.body.state_dict(), "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    torch.save(own, tmp_path / "w.pt")
    again = build_network("timm:resnet10t", 2, str(tmp_path / "w.pt"), size_px=32, seed=1, device="cpu")
    trunk = again.module.body.state_dict()
    assert all((trunk[key] == value).all() for key, value in network.module.body.state_dict().items())
    with pytest.raises(UsageError, match="timm:resnet10t"):
        build_network("timm:resnet10x", 2, "none")


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_timm_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    messages: list[str] = []
    with pytest.raises(MissingError, match="could not download"):
        build_network("timm:resnet10t", 1, note=messages.append)
    assert "licence" in messages[0]


@pytest.mark.parametrize(
    ("name", "size_px", "n_features"),
    [
        ("LeNet5", 32, 84),
        ("LeNet5Relu", 32, 84),
        ("SeparableCnn", 48, 128),
        ("ThreeConv", 64, 128),
        ("ThreeConvDropout", 64, 128),
        ("EmbeddingMlp", 224, 128),
    ],
)
def test_the_networks_of_the_examples(name: str, size_px: int, n_features: int) -> None:
    network = build_network(f"{EXAMPLES}:{name}", 4, "none", device="cpu")
    assert (network.normalisation.size_px, network.module.head.in_features) == (size_px, n_features)
    dense = [layer for layer in network.module.body.modules() if isinstance(layer, nn.Linear)]
    if name == "EmbeddingMlp":  # the embedding is frozen: only the dense layers are trained
        assert {id(parameter) for parameter in network.groups()["body"]} == {
            id(parameter) for layer in dense for parameter in layer.parameters()
        }
