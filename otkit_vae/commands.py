"""What each command does and prints. The options of most are the arguments of their functions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otkit._arguments import require_count

if TYPE_CHECKING:
    from otkit_vae.config import TrainConfig
    from otkit_vae.evaluation import EvaluationOptions
    from otkit_vae.runs import Run

# Imports are within the functions, and none is of the engine above, as the parser makes those of types too: --help
# should not wait for the engine and the pictures.


def train(config: TrainConfig) -> None:
    """Train, and print the table of held-out numbers and the files of the run.

    Args:
        config: The options of the training.
    """
    from otkit_vae.training import train as run_training

    _print(run_training(config))


def resume(run: str, **changes: Any) -> None:
    """Go on with a training, and print what `train` does.

    Args:
        run: The run folder.
        **changes: Options to change, by their names.
    """
    from otkit_vae.training import resume as resume_training

    _print(resume_training(run, **changes))


def _print(run: Run | None) -> None:
    if run is None:
        return  # one of several processes, but not the first
    print(run.evaluation.table())
    print(f"\n{run.folder}")
    for file in sorted(run.folder.iterdir()):
        print(f"  {file.name}")


def evaluate(run: str, options: EvaluationOptions) -> None:
    """Evaluate a run on its held-out data, print the table, and write RUN/evaluation.json and RUN/report.html.

    Args:
        run: The folder of a training, finished or as far as its last checkpoint.
        options: How many of what.
    """
    from otkit_vae.evaluation import Reference
    from otkit_vae.report import write_report
    from otkit_vae.runs import EVALUATION, evaluated, open_run, write_evaluation

    opened = open_run(run)
    if opened.unfinished:
        print(opened.unfinished, file=sys.stderr)
    evaluation = evaluated(opened, options, Reference(opened.data, opened.folder / "classifier.pt"), progress=True)
    print(evaluation.table())  # first, as a folder that cannot be written should not cost the numbers
    write_evaluation(opened, options, evaluation)
    print(f"\n{opened.folder / EVALUATION}\n{write_report(opened, evaluation)}")


def report(run: str) -> None:
    """Write RUN/report.html again, with the numbers of RUN/evaluation.json if it is there.

    Args:
        run: The folder of a finished training.
    """
    from otkit_vae.report import write_report
    from otkit_vae.runs import open_run

    print(write_report(open_run(run)))


def sample(run: str, n: int = 100, out: str = "samples.npz", source: str = "prior", seed: int = 0) -> None:
    """Draw samples: the .npz has the images (means of p(x|z)) and the codes z; beside it is a picture of the first.

    Args:
        run: The folder of a finished training.
        n: How many samples.
        out: The .npz file to write, which must be new.
        source: Where the codes are drawn from: "prior", for which the data need not be there, or "mixture",
            Gaussians fitted to the training codes.
        seed: Seeds the draws.
    """
    import torch

    from otkit_vae import pictures
    from otkit_vae.evaluation import decode, ex_post
    from otkit_vae.runs import open_model, open_run
    from otkit_vae.sampling import checked_seed
    from otkit_vae.sampling import sample as draw

    if not 1 <= n < 2**63:
        raise ValueError(f"n is {n}; expected a whole number from 1 to 2**63 - 1")
    file, generator = _new_file(out), torch.Generator().manual_seed(checked_seed(seed))
    if source == "mixture":
        opened = open_run(run)
        model, codes = opened.model, ex_post(opened.model, opened.data.train, seed=seed, generator=generator)
    else:
        model = open_model(run)
        codes = model.prior
    with torch.no_grad():
        z = draw(codes, n, generator)
    images = decode(model, z)
    _save(file, images=images, codes=z)
    pictures.grid(images[:100], file.with_suffix(".png"), title=f"samples: decoded from z ~ the {source}")
    print(f"{n} samples of shape {tuple(images.shape[1:])}\n\n{file}\n{file.with_suffix('.png')}")


def augment(
    run: str,
    n_per_class: int = 100,
    labelled_per_class: int | None = None,
    out: str = "augmented.npz",
    seed: int = 0,
) -> None:
    """Generate images (means of p(x|z)), by a Gaussian of codes for each class, and labels as the data have them.

    Args:
        run: The folder of a finished training, whose data have labels.
        n_per_class: How many to generate of each class.
        labelled_per_class: The number of training observations of each class to fit the Gaussians to; all if null.
        out: The .npz file to write, which must be new; a .png of its first images is put beside it.
        seed: Seeds the draws.
    """
    import numpy as np
    import torch

    from otkit_vae import pictures
    from otkit_vae.evaluation import augment as generate
    from otkit_vae.evaluation import labelled, labelled_subset
    from otkit_vae.evaluation._rare import rarest, untrained
    from otkit_vae.runs import open_run
    from otkit_vae.sampling import checked_seed

    require_count("n_per_class", n_per_class)
    if labelled_per_class is not None:
        require_count("labelled_per_class", labelled_per_class, least=2)
    file, generator = _new_file(out), torch.Generator().manual_seed(checked_seed(seed))
    opened = open_run(run)
    data = labelled(opened.data)
    if data is None:
        raise ValueError(
            f"run: its data ({opened.config.data}) have no labels of two classes or more; expected digits, an .npz "
            "file with labels under y, labels or target, a .csv file with a column label, labels or target, or images "
            "in a folder for each class"
        )
    least, never = rarest(opened.data), untrained(opened.data)
    if least is not None and least.n < 2:
        raise ValueError(
            f"run: the class {least.name} of its data ({opened.config.data}) has one training observation; expected at "
            "least 2 of each class to fit a Gaussian to their codes"
        )
    if never is not None:
        print(f"{opened.folder}: {never}", file=sys.stderr)
    if labelled_per_class is not None:
        data = labelled_subset(*data, labelled_per_class, generator=generator)
    images, labels = generate(opened.model, data, n_per_class, generator=generator)
    named = opened.data.named(labels)
    _save(file, images=images, labels=named)
    rows = {str(label): images[named == label][:10] for label in np.unique(named)[:20]}
    pictures.side_by_side(rows, file.with_suffix(".png"), title="generated, by class")
    print(f"{len(images)} observations of {len(labels.unique())} classes\n\n{file}\n{file.with_suffix('.png')}")


def compare(
    training: TrainConfig,
    out: str,
    penalties: str = "all",
    seeds: int = 3,
    weights: dict[str, float] | None = None,
) -> None:
    """Train with several penalties and seeds, and compare: a table (Markdown, CSV and JSON) and pictures side by side.

    A comparison that was stopped goes on where it was if it is started again; penalties and seeds can be added.

    Args:
        training: The options of every training.
        out: The folder to write: new, empty, or a comparison with the same options.
        penalties: The names of penalties, separated by commas; "all" for all there are.
        seeds: How many seeds; the first is that of the options.
        weights: The weights of penalties that are not to have their default, such as '{kl: 0.5}'.
    """
    from otkit_vae import comparison
    from otkit_vae import penalties as registered

    names = registered.names() if penalties == "all" else tuple(filter(None, map(str.strip, penalties.split(","))))
    found = comparison.compare(training, names, n_seeds=seeds, out=out, weights=weights, progress=training.progress)
    print(found.markdown())
    print(f"\n{found.folder}")
    for file in sorted(path for path in found.folder.iterdir() if path.is_file()):
        print(f"  {file.name}")


def _new_file(out: str) -> Path:
    """The .npz file to write, checked before the work."""
    file = Path(out)
    if file.suffix != ".npz":
        raise ValueError(f"out is {out!r}; expected the name of an .npz file")
    for path in (file, file.with_suffix(".png")):
        if path.exists():
            raise FileExistsError(f"out: {path} exists; expected a new file")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"out: no folder {file.parent}; expected one that exists")
    return file


def _save(file: Path, **tensors: object) -> None:
    import numpy as np

    from otkit_vae._files import replacing

    arrays: Any = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    with replacing(file) as opened:
        np.savez_compressed(opened, **arrays)
