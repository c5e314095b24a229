"""A small classifier, trained on the data themselves: features to compare samples in, and a judge of augmented data.

Two convolutions for images, a perceptron for anything else, then 64 features and a linear layer to the classes. Its
features know what tells the classes of these data apart, and nothing of other images: a Fréchet distance in
them is the "Fréchet distance in the features of a classifier trained on this data". It is not the Inception FID, and
its values compare with those of the same classifier only. The training is the same for the same data and seed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from otkit_vae._files import replacing
from otkit_vae.data import fingerprint
from otkit_vae.networks import perceptron

N_FEATURES = 64
STEPS = 1500
BATCH_SIZE = 128
LEARNING_RATE = 2e-3
FORMAT = 1


class Classifier(nn.Module):
    """The network from observations to the logits of classes.

    Args:
        event_shape: The shape of an observation: an image (H, W), (C, H, W) or (H, W, C), or anything.
        classes: The labels, in ascending order.
    """

    classes: Tensor

    def __init__(self, event_shape: Sequence[int], classes: Tensor):
        super().__init__()
        self.register_buffer("classes", classes)
        self.event_shape = tuple(event_shape)
        shape = _planes(torch.empty(1, *event_shape)).shape[1:]
        if len(shape) == 3 and min(shape[1:]) >= 4:
            height, width = ((size + 3) // 4 for size in shape[1:])
            layers: list[nn.Module] = [
                nn.Conv2d(shape[0], 16, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(16, 32, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Flatten(),
                nn.Linear(32 * height * width, N_FEATURES),
            ]
        else:
            layers = [nn.Flatten(), perceptron(shape.numel(), 256, N_FEATURES)]
        self.body = nn.Sequential(*layers, nn.SiLU())
        self.head = nn.Linear(N_FEATURES, len(classes))

    def forward(self, x: Tensor) -> Tensor:
        """The logits (N, C) of observations (N, *event)."""
        return self.head(self.body(_planes(x)))

    @torch.no_grad()
    def features(self, x: Tensor, *, batch_size: int = 2000) -> Tensor:
        """The features (n, 64) of observations (n, *event), batch by batch."""
        return torch.cat([self.body(_planes(batch)) for batch in x.split(batch_size)])

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor, *, batch_size: int = 2000) -> float:
        """The fraction of observations (n, *event) whose labels (n,) are found."""
        found = torch.cat([self(batch).argmax(-1) for batch in x.split(batch_size)])
        return (self.classes[found] == labels).double().mean().item()


def _planes(x: Tensor) -> Tensor:
    """Images as (N, C, H, W); other observations as they are."""
    if x.ndim == 3:
        return x.unsqueeze(1)
    if x.ndim == 4 and x.shape[1] not in (1, 3, 4) and x.shape[-1] in (1, 3, 4):
        return x.movedim(-1, 1)
    return x


def fit_classifier(x: Tensor, labels: Tensor, *, steps: int = STEPS, seed: int = 0) -> Classifier:
    """Train a classifier by Adam on cross-entropy, the learning rate falling to 0 along a half cosine.

    The number of steps does not depend on the number of observations, so that two sets of data get the same training.
    The global random state is left as it was.

    Args:
        x: Observations, with shape (n, *event).
        labels: Whole numbers, with shape (n,), of two classes at least.
        steps: The number of steps, of up to 128 observations each.
        seed: Seeds the weights and the order of the data.

    Raises:
        ValueError: Labels that are not one for each observation, or of one class only.
    """
    if labels.shape != x.shape[:1]:
        raise ValueError(f"labels has shape {tuple(labels.shape)}; expected ({len(x)},), one for each observation")
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels has one class ({classes.tolist()}); expected at least 2 to tell apart")
    size = min(BATCH_SIZE, len(x))
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        classifier = Classifier(x.shape[1:], classes)
        optimizer = torch.optim.Adam(classifier.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if len(order) < size:
                order = torch.randperm(len(x))
            batch, order = order[:size], order[size:]
            loss = nn.functional.cross_entropy(classifier(x[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval().requires_grad_(False)


def cached_classifier(x: Tensor, labels: Tensor, *, cache: Path | None = None, seed: int = 0) -> Classifier:
    """`fit_classifier`, or what an earlier call with the same data and seed has left in a file.

    Args:
        x: Observations, with shape (n, *event).
        labels: Whole numbers, with shape (n,).
        cache: The file, which is read if it is of these data and this seed, and written otherwise,
            where it can be; none if None.
        seed: Seeds the training.
    """
    if cache is None:
        return fit_classifier(x, labels, seed=seed)
    known = f"{FORMAT}, {STEPS} steps, seed {seed}: {fingerprint(x)}; {fingerprint(labels)}"
    try:
        content = torch.load(cache, weights_only=True)
        if content["fingerprint"] == known:
            classifier = Classifier(x.shape[1:], content["state_dict"]["classes"])
            classifier.load_state_dict(content["state_dict"])
            return classifier.eval().requires_grad_(False)
    except Exception:
        pass  # not there, or not one of ours, which the unpickler says in many ways: it is made anew
    classifier = fit_classifier(x, labels, seed=seed)
    content = io.BytesIO()
    torch.save({"fingerprint": known, "state_dict": classifier.state_dict()}, content)
    with suppress(OSError), replacing(cache) as file:  # in a folder that is read only: made anew the next time
        file.write(content.getbuffer())
    return classifier
