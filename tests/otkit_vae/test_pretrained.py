"""Models in folders to share, and as programs of torch.export."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.export import Dim, export

from otkit_vae import VAE
from otkit_vae.likelihoods import Bernoulli, Gaussian
from otkit_vae.posteriors import DeterministicPosterior
from otkit_vae.pretrained import CONFIG, WEIGHTS

SIZED = [
    {"event_shape": (6, 5), "latent_dim": 2},
    {"event_shape": (5,), "latent_dim": 1, "likelihood": "gaussian", "widths": (7,), "posterior": "full"},
    {"event_shape": (3, 9, 7), "latent_dim": 3, "network": "conv", "widths": (4, 8), "posterior": "deterministic"},
    {"event_shape": (4,), "latent_dim": 2, "likelihood": "gaussian", "scale": 0.3, "prior": "mixture", "components": 3},
]


@pytest.fixture
def saved(tmp_path):
    return VAE.sized((6, 5), 2, widths=(8,)).save_pretrained(tmp_path / "mine")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", SIZED)
def test_a_model_comes_back_as_it_was(tmp_path, options, dtype):
    model = VAE.sized(**options).to(dtype).eval()
    state = torch.get_rng_state()
    same = VAE.from_pretrained(model.save_pretrained(tmp_path / "a"))
    assert torch.equal(torch.get_rng_state(), state)
    assert same.architecture == json.loads(json.dumps(model.architecture))
    assert not same.training
    assert same.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor), name
        assert same.state_dict()[name].dtype == tensor.dtype
    x = torch.rand(3, *options["event_shape"], dtype=dtype)
    assert torch.equal(same.reconstruct(x), model.reconstruct(x))
    a, b = (m.sample(5, generator=torch.Generator().manual_seed(1)) for m in (model, same))
    assert torch.equal(a, b)
    # It can be trained on.
    same.decode(same.encode(x).mean).log_prob(x).sum().backward()
    assert all(p.grad is not None for name, p in same.named_parameters() if name.startswith("encoder.network.0"))


def told(tensor):
    """One number of a tensor, which no two orders of its entries have in common."""
    return (tensor.detach().flatten() * torch.arange(1, 1 + tensor.numel(), dtype=torch.float64).cos()).sum().item()


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (
            {"event_shape": (5,), "latent_dim": 4, "likelihood": "gaussian", "widths": (3, 6), "posterior": "full"},
            [15, 0.038684546309, -3.0491017885, -5.3402013561, 36.052041981, -1.1014398379],
        ),
        (
            {"event_shape": (9, 7, 3), "latent_dim": 3, "network": "conv", "widths": (8, 12), "prior": "mixture"},
            [22, 1.6723119491, 1.7600648537, 0.49104307365, 244.38451236, -0.60406518214],
        ),
    ],
    ids=["mlp", "conv"],
)
def test_weights_mean_the_same_as_when_their_format_was_made(options, numbers):
    """What makes this fail makes other models of the files that are there: it needs another FORMAT_VERSION."""
    model = VAE.sized(**options).double().eval()
    for k, tensor in enumerate(state := model.state_dict().values(), 1):
        tensor.copy_((k * torch.arange(1.0, 1 + tensor.numel()).double()).sin().view_as(tensor))
    x = torch.arange(4.0 * np.prod(options["event_shape"])).double().cos().square().view(4, *options["event_shape"])
    q = model.encode(x)
    found = [q.mean, q.stddev, model.decode(q.mean).mean, model.decode(q.mean).log_prob(x), model.prior.stddev]
    assert [len(state), *map(told, found)] == pytest.approx(numbers, rel=1e-9)


def test_a_model_may_be_laid_out_in_memory_in_another_way(tmp_path):
    model = VAE.sized((3, 8, 8), 2, network="conv", widths=[4]).to(memory_format=torch.channels_last).eval()
    assert not model.encoder.network[0].weight.is_contiguous()
    same, x = VAE.from_pretrained(model.save_pretrained(tmp_path / "a")), torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(same.reconstruct(x), model.reconstruct(x))


def test_saving_again_replaces_the_model_and_nothing_else(tmp_path, saved):
    (saved / "README.md").write_text("mine")
    other = VAE.sized((4,), 3, widths=(8,))
    other.save_pretrained(saved)
    assert sorted(file.name for file in saved.iterdir()) == ["README.md", CONFIG, WEIGHTS]
    assert torch.equal(VAE.from_pretrained(saved).sample(1, generator=torch.Generator().manual_seed(0)),
                       other.sample(1, generator=torch.Generator().manual_seed(0)))  # fmt: skip


def test_it_is_read_without_the_engine_and_without_code(saved):
    # None in sys.modules makes an import fail.
    program = (
        "import sys\n"
        "blocked = ('pytorch_lightning', 'jsonargparse', 'matplotlib', 'jinja2', 'sklearn', 'yaml')\n"
        "sys.modules.update(dict.fromkeys(blocked))\n"
        "from otkit_vae import VAE\n"
        "print(tuple(VAE.from_pretrained(sys.argv[1]).sample(3).shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(saved)], capture_output=True, text=True, check=False)
    assert done.stdout == "(3, 6, 5)\n", done.stderr


def test_without_safetensors_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"otkit\[train\]"):
        VAE.from_pretrained(saved)


def edit(folder, **changes):
    about = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps(about))


def architecture(folder, **changes):
    edit(folder, architecture=json.loads((folder / CONFIG).read_text())["architecture"] | changes)


def without_a_weight(folder):
    weights = load_file(folder / WEIGHTS)
    del weights["decoder.network.0.bias"]
    save_file(weights | {"colour": torch.zeros(1)}, folder / WEIGHTS)


def without_five_weights(folder):
    save_file(dict(sorted(load_file(folder / WEIGHTS).items())[5:]), folder / WEIGHTS)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / CONFIG).unlink(), FileNotFoundError, "folder: no file .*config.json; expected a folder of VAE"),
        (lambda f: (f / WEIGHTS).unlink(), FileNotFoundError, "folder: no file .*model.safetensors"),
        (lambda f: (f / CONFIG).write_text("{"), ValueError, "config.json is not JSON"),
        (lambda f: (f / CONFIG).write_text("[1]"), ValueError, "is not of the format otkit_vae.VAE"),
        (lambda f: edit(f, format="pythae"), ValueError, "is not of the format otkit_vae.VAE"),
        (lambda f: edit(f, format_version=1), ValueError, "has format version 1, written by otkit .*; expected 2"),
        (lambda f: edit(f, architecture=None), ValueError, "has no architecture"),
        (lambda f: architecture(f, colour="red"), ValueError, "describes no model of this version"),
        (lambda f: architecture(f, network="rnn"), ValueError, "describes no model .*network is 'rnn'"),
        (lambda f: architecture(f, latent_dim="2"), ValueError, "describes no model of this version"),
        (lambda f: architecture(f, event_shape=[1e400], widths=None), ValueError, "describes no model of this version"),
        (lambda f: architecture(f, latent_dim=3), ValueError, r"2.weight has shape \(4, 8\), expected \(6, 8\)"),
        # A size that no memory could hold is a shape like any other.
        (lambda f: architecture(f, widths=[10**9]), ValueError, r"has shape \(8, 30\), expected \(1000000000, 30\)"),
        (without_a_weight, ValueError, "no decoder.network.0.bias; colour, which is unknown"),
        (without_five_weights, ValueError, r"config\.json: no [\w.]+; no [\w.]+; no [\w.]+; and 2 more$"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-5]), ValueError, "not a whole safetensors"),
        (lambda f: (f / WEIGHTS).write_bytes(b""), ValueError, "is not a whole safetensors file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_said(saved, damage, error, message):
    damage(saved)
    with pytest.raises(error, match=message):
        VAE.from_pretrained(saved)


def test_modules_of_your_own_cannot_be_described(tmp_path):
    model = VAE(nn.Flatten(), nn.Unflatten(1, (2, 2)), Bernoulli(), 4)
    with pytest.raises(ValueError, match=r"modules of your own; .* safetensors\.torch\.save_file\(model\.state_dict"):
        model.save_pretrained(tmp_path / "mine")
    model = VAE.sized((4,), 2)
    model.decoder = nn.Linear(2, 4)
    with pytest.raises(ValueError, match=r"model was changed after VAE\.sized made it: no decoder\.network\.0\.weight"):
        model.save_pretrained(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


class Mine(nn.Module):
    """A likelihood without parameters."""

    def forward(self, output):
        return torch.distributions.Independent(torch.distributions.Laplace(output, 1.0), output.ndim - 1)


class Own(VAE):
    """A model of a kind of its own."""


class Doubled(nn.ReLU):
    """Another module by the name of torch's."""

    __qualname__ = "ReLU"

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("path", "module", "said"),
    [
        ("likelihood", Mine(), r"likelihood is Mine\(\) where there was Gaussian\(scale=0.1\)"),
        ("likelihood", Gaussian(0.5), r"likelihood is Gaussian\(scale=0.5\) where there was Gaussian\(scale=0.1\)"),
        ("encoder.network.1", Doubled(), r"encoder.network.1 is ReLU\(\) where there was ReLU\(\)"),
        ("encoder.network.1", nn.GELU(), r"encoder.network.1 is GELU\(approximate='none'\) where there was ReLU\(\)"),
        (
            "encoder.network.1",
            nn.Sequential(nn.ReLU()),
            r"encoder.network.1 is Sequential\(\) where there was ReLU\(\)",
        ),
        ("posterior", DeterministicPosterior(), r"posterior is DeterministicPosterior\(\)"),
        ("encoder.hook", nn.Identity(), r"encoder.hook is Identity\(\) where there was nothing"),
    ],
)
def test_modules_without_weights_are_your_own_too(tmp_path, path, module, said):
    model = VAE.sized((4,), 2, likelihood="gaussian", scale=0.1)
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, module)
    with pytest.raises(ValueError, match=rf"model was changed after VAE\.sized made it: {said}"):
        model.save_pretrained(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_module_without_weights_may_be_in_two_places(tmp_path):
    model = VAE.sized((4,), 2, widths=[8, 8]).eval()
    model.encoder.network[1] = model.encoder.network[3]
    same, x = VAE.from_pretrained(model.save_pretrained(tmp_path / "a")), torch.rand(2, 4)
    assert torch.equal(same.reconstruct(x), model.reconstruct(x))


def test_a_class_of_your_own_is_not_described(tmp_path):
    with pytest.raises(ValueError, match=r"model is Own\(\) where there was VAE\(\)"):
        Own.sized((4,), 2).save_pretrained(tmp_path / "mine")


def test_sizes_may_be_of_numpy(tmp_path):
    sizes = np.array([4, 2, 8, 3])
    model = VAE.sized(
        list(sizes[:1]), sizes[1], widths=sizes[2:3], prior="mixture", components=sizes[3], likelihood="gaussian",
        scale=np.float32(0.1),
    )  # fmt: skip
    same = VAE.from_pretrained(model.save_pretrained(tmp_path / "mine"))
    x = torch.rand(3, 4)
    assert torch.equal(same.reconstruct(x), model.reconstruct(x))
    assert same.likelihood.fixed_scale == model.likelihood.fixed_scale


def test_what_cannot_be_written_leaves_the_model_that_was_there(saved):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    model = VAE.sized((6, 5), 2, widths=(8,))
    model.architecture["widths"] = [np.int64(8)]
    with pytest.raises(TypeError, match="not JSON serializable"):
        model.save_pretrained(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match=r"folder: .* cannot be written"):
        VAE.sized((4,), 2).save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


class Moments(nn.Module):
    """What the tutorial exports: the mean and the standard deviations of q(z|x)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        q = self.model.encode(x)
        return q.mean, q.stddev


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((6, 5), {"widths": (8,), "posterior": "full"}),
        ((3, 9, 7), {"network": "conv", "widths": (4, 8), "posterior": "deterministic"}),
        ((6, 5, 3), {"network": "conv", "widths": (4,), "likelihood": "gaussian"}),
    ],
)
def test_encoder_and_decoder_are_exported_for_any_batch(tmp_path, shape, options):
    model = VAE.sized(shape, 3, **options).eval()
    x, z = torch.rand(4, *shape), torch.randn(4, 3)
    for module, example in ((model.encoder, x), (model.decoder, z), (Moments(model), x)):
        program = export(module, (example,), dynamic_shapes=({0: Dim("batch")},))
        torch.export.save(program, tmp_path / "part.pt2")
        exported = torch.export.load(tmp_path / "part.pt2").module()
        for n in (1, 2, 50):
            batch = torch.rand(n, *example.shape[1:])
            found, expected = exported(batch), module(batch)
            assert isinstance(found, torch.Tensor) == isinstance(expected, torch.Tensor)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_features_of_an_exported_encoder_are_the_posterior():
    model = VAE.sized((6, 5), 2, widths=(8,)).eval()
    x = torch.rand(7, 6, 5)
    exported = export(model.encoder, (x,), dynamic_shapes=({0: Dim("batch")},)).module()
    q, expected = model.posterior(exported(x)), model.encode(x)
    torch.testing.assert_close(q.mean, expected.mean)
    torch.testing.assert_close(q.stddev, expected.stddev)
