"""Trained models to share: a folder with model.safetensors, the weights, and config.json, what they are weights of.

Neither has code in it, and nothing of the training is needed to read them: torch and safetensors are enough. What can
be described is what `VAE.sized` makes; a model with modules of your own is described by your code alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from otkit import __version__
from otkit_vae._files import replacing

if TYPE_CHECKING:
    from otkit_vae.model import VAE

CONFIG, WEIGHTS = "config.json", "model.safetensors"

FORMAT = "otkit_vae.VAE"
FORMAT_VERSION = 2
"""The version of the format; another one is refused."""


def save(model: VAE, folder: str | Path) -> Path:
    """Write a model into a folder, in place of one that is there; other files in it stay.

    Args:
        model: A model that `VAE.sized` made, trained or not, of any dtype, on any device.
        folder: The folder, made if it is not there.

    Returns:
        The folder.

    Raises:
        ValueError: The model has modules of your own, which a file without code cannot describe.
        OSError: The folder cannot be written.
        ImportError: safetensors is not installed.
    """
    safetensors = _safetensors()
    own = (
        "keep the code that makes it, save the weights by safetensors.torch.save_file(model.state_dict(), file), and "
        "read them by model.load_state_dict(safetensors.torch.load_file(file))"
    )
    if model.architecture is None:
        raise ValueError(f"model has modules of your own; expected a model of VAE.sized ({own})")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    made = _made(model.architecture)
    wrong = _differences(_shapes(made), _shapes(model)) or _exchanged(made, model)
    if wrong:
        raise ValueError(f"model was changed after VAE.sized made it: {wrong}; expected its own modules ({own})")
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "otkit_version": __version__,
        "architecture": model.architecture,
    }
    folder = Path(folder)
    contents = {
        WEIGHTS: safetensors.torch.save(weights, {"format": "pt"}),
        CONFIG: (json.dumps(about, indent=2) + "\n").encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"folder: {folder} cannot be written ({error.strerror}); expected one that can") from None
    for name, content in contents.items():
        with replacing(folder / name) as file:
            file.write(content)
    return folder


def load(folder: str | Path) -> VAE:
    """The model that `save` wrote into a folder, on the CPU, in the dtype that it had, in evaluation mode.

    Args:
        folder: The folder, with model.safetensors and config.json.

    Raises:
        FileNotFoundError: The folder or one of its files is not there.
        ValueError: The files are damaged, of another format or version, or do not fit each other.
        ImportError: safetensors is not installed.
    """
    from otkit_vae.model import VAE

    safetensors, folder = _safetensors(), Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"folder: no file {folder / name}; expected a folder of VAE.save_pretrained (a run folder is read by "
                "otkit_vae.load)"
            )
    architecture = _architecture(folder / CONFIG)
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except safetensors.SafetensorError as error:
        raise ValueError(f"folder: {folder / WEIGHTS} is not a whole safetensors file ({error})") from None
    try:
        expected = _shapes(_made(architecture))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"folder: {folder / CONFIG} describes no model of this version ({error})") from None
    wrong = _differences(expected, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    if wrong:
        raise ValueError(f"folder: {folder / WEIGHTS} does not fit {folder / CONFIG}: {wrong}")
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn first are thrown away
        model = VAE.sized(**architecture)
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_().eval()


def _architecture(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"folder: {file} is not JSON ({error})") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"folder: {file} is not of the format {FORMAT}; expected a folder of VAE.save_pretrained")
    if about.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"folder: {file} has format version {about.get('format_version')!r}, written by otkit "
            f"{about.get('otkit_version')}; expected {FORMAT_VERSION} (install that otkit, or save the model again)"
        )
    if not isinstance(about.get("architecture"), dict):
        raise ValueError(f"folder: {file} has no architecture; expected the arguments of VAE.sized")
    return about["architecture"]


def _made(architecture: Mapping[str, Any]) -> VAE:
    """The model of `VAE.sized`, without memory for its weights."""
    from otkit_vae.model import VAE

    with torch.device("meta"):
        return VAE.sized(**architecture)


def _shapes(model: VAE) -> dict[str, tuple[int, ...]]:
    """The shape of each weight."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _exchanged(made: VAE, model: VAE) -> str:
    """The first module that is of another kind or has other options, whatever its weights; empty if none is."""
    known, found = (dict(part.named_modules(remove_duplicate=False)) for part in (made, model))

    def said(module: nn.Module | None) -> str:
        return "nothing" if module is None else f"{type(module).__qualname__}({module.extra_repr()})"

    for name in known | found:
        one, other = known.get(name), found.get(name)
        if type(one) is not type(other) or said(one) != said(other):
            return f"{name or 'model'} is {said(other)} where there was {said(one)}"
    return ""


def _differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """What is missing, unknown or of another shape, in words; empty if nothing is."""
    said = [f"no {name}" for name in expected if name not in found]
    said += [f"{name}, which is unknown" for name in found if name not in expected]
    said += [
        f"{name} has shape {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(f"{error}; install the train extra, pip install 'otkit[train]', or safetensors") from None
    return safetensors
