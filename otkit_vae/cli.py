"""The ``otkit-vae`` command."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from typing import Any

import torch

UNION = re.compile(
    "Does not validate against any of the Union subtypes Subtypes: .* Errors: - (.*) Given value type: .* Given value:"
)
"""What the parser says where no type of a union takes a value; the group is what each of them expected."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (those of the process by default); return its exit status."""
    try:
        arguments = [_underscored(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
        parser = _parser(engine="train" in arguments)
        options = parser.parse_args(arguments)
        command = options.command
        if command == "train" and options.train.resume is not None:
            # Options that were not given are those of the run.
            _resume(parser.parse_args(arguments, defaults=False).train)
        else:
            _run(command, options[command])
    except ImportError as error:
        print(f"otkit-vae: error: {error}; install the train extra: pip install 'otkit[train]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        said = f"interrupted; {interrupt}" if str(interrupt) else "interrupted; what was written is kept"
        print(f"otkit-vae: {said}", file=sys.stderr)
        return 130
    except (
        *(ArgumentError, ValueError, TypeError, ArithmeticError),
        *(OSError, MemoryError, torch.OutOfMemoryError),
    ) as error:
        print(f"otkit-vae: error: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # torch's word for too little memory, on a CPU
            raise
        print(f"otkit-vae: error: too little memory ({str(error).splitlines()[0]})", file=sys.stderr)
        return 2
    return 0


def _parser(*, engine: bool) -> Any:
    """The options of every command, from the classes and functions that take them.

    Those of the engine, whose import takes as long as all else, are there only where they are asked for.
    """
    import jsonargparse

    from otkit import __version__
    from otkit_vae import commands
    from otkit_vae.config import TrainConfig
    from otkit_vae.evaluation import EvaluationOptions

    def command(description: str, example: str) -> Any:
        return jsonargparse.ArgumentParser(
            exit_on_error=False, description=description, epilog=f"example: otkit-vae {example}"
        )

    training = command(
        "Train a VAE with a latent penalty, and leave a run folder: config.yaml, checkpoint.ckpt, metrics.csv, "
        "reconstructions.png, samples.png, latent.png, report.html. Prints a table of numbers on held-out data, "
        "those of the codes beside their values if codes and prior agreed.",
        "train --penalty kl --epochs 30 --seed 1 --out runs/kl",
    )
    training.add_argument("--config", action="config", help="A YAML file of options, such as the config.yaml of a run.")
    training.add_argument(
        "--resume",
        type=str,
        metavar="RUN",
        help="Go on with the training of a run folder, with its options, from its last checkpoint to the same end; "
        "epochs, progress, checkpoint_steps, max_gradient_norm and the options of the trainer may be changed, and data "
        "and data_root where the same data have moved.",
    )
    training.add_class_arguments(TrainConfig, skip={"trainer"})
    if engine:
        from otkit_vae import trainer

        trainer.add_options(training)

    evaluation = command(
        "Evaluate a run on its held-out data: reconstruction, codes against the prior, a bound of log p(x), samples in "
        "the features of a classifier of the data, augmented training. Prints a table, and writes RUN/evaluation.json "
        "and RUN/report.html.",
        "evaluate runs/kl",
    )
    evaluation.add_argument("run", type=str, help="The folder of a finished training.")
    evaluation.add_class_arguments(EvaluationOptions)

    sampling = command(
        "Draw samples from a run into an .npz file (images, codes), with a picture beside it.",
        "sample runs/kl --n 1000 --from mixture --out samples.npz",
    )
    sampling.add_function_arguments(commands.sample, as_positional=True, skip={"source"})
    sampling.add_argument(
        "--from",
        choices=["prior", "mixture"],
        default="prior",
        help="Where the codes are drawn from: the prior, for which the data need not be there, or a mixture of "
        "Gaussians fitted to the training codes.",
    )

    reporting = command(
        "Write the report of a run again, with the numbers of its last evaluation: RUN/report.html, one file with "
        "curves, pictures, numbers and config, that needs nothing but a browser.",
        "report runs/kl",
    )
    reporting.add_function_arguments(commands.report, as_positional=True)

    augmentation = command(
        "Generate labelled data from a run into an .npz file (images, labels), by a Gaussian of codes for each class, "
        "with a picture beside it.",
        "augment runs/kl --n_per_class 500 --out augmented.npz",
    )
    augmentation.add_function_arguments(commands.augment, as_positional=True)

    comparison = command(
        "Train with several penalties and seeds, all else equal, and compare: a table (comparison.md, .csv and .json), "
        "samples and reconstructions side by side, and report.html. Started again, it goes on where it was stopped.",
        "compare --penalties kl,gaussian_w2 --seeds 3 --epochs 10 --out comparison",
    )
    comparison.add_argument("--config", action="config", help="A YAML file of options.")
    comparison.add_function_arguments(commands.compare, skip={"training"})
    comparison.add_class_arguments(TrainConfig, skip={"penalty", "penalty_options", "weight", "out", "trainer"})

    parser = jsonargparse.ArgumentParser(
        prog="otkit-vae",
        exit_on_error=False,
        version=f"otkit {__version__}",
        description="Variational auto-encoders with Wasserstein penalties.",
    )
    subcommands = parser.add_subcommands(dest="command")
    subcommands.add_subcommand("train", training, help="Train a model.")
    subcommands.add_subcommand("evaluate", evaluation, help="Evaluate a trained model.")
    subcommands.add_subcommand("report", reporting, help="Write the report of a trained model.")
    subcommands.add_subcommand("sample", sampling, help="Draw samples from a trained model.")
    subcommands.add_subcommand("augment", augmentation, help="Generate labelled data with a trained model.")
    subcommands.add_subcommand("compare", comparison, help="Train and compare several penalties.")
    return parser


def _run(command: str, options: Any) -> None:
    """Do what was asked for."""
    from otkit_vae import commands
    from otkit_vae.config import TrainConfig
    from otkit_vae.evaluation import EvaluationOptions

    chosen = _plain(options)
    if command == "train":
        chosen.pop("resume")
        commands.train(TrainConfig(**chosen))
    elif command == "evaluate":
        commands.evaluate(chosen.pop("run"), EvaluationOptions(**chosen))
    elif command == "sample":
        commands.sample(source=chosen.pop("from"), **chosen)
    elif command == "report":
        commands.report(**chosen)
    elif command == "augment":
        commands.augment(**chosen)
    else:
        mine = {name: chosen.pop(name) for name in ("out", "penalties", "seeds", "weights")}
        commands.compare(TrainConfig(**chosen), **mine)


def _resume(options: Any) -> None:
    from otkit_vae import commands, trainer

    chosen = _plain(options)
    if "trainer" in options:
        # All that were given: one may be set back to its default.
        chosen["trainer"] = trainer.plain(options.trainer.as_dict())
    commands.resume(chosen.pop("resume"), **chosen)


def _plain(options: Any) -> dict[str, Any]:
    """The options by their names; of the training engine's, only those that are not as they are by default."""
    chosen = options.as_dict()
    chosen.pop("config", None)
    if "trainer" in options:
        from otkit_vae import trainer

        chosen["trainer"] = trainer.chosen(options.trainer)
    return chosen


def _one_line(message: str) -> str:
    """A message without line breaks and, where no type of a union takes a value, without what the parser says twice."""
    line = UNION.sub(lambda said: f"Expected {_either(said[1])}. Got value:", " ".join(message.split()))
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", re.sub("(a )?<class 'NoneType'>", "null", line))


def _either(expected: str) -> str:
    # In an order of their own, None last, as Python's typing has a union's types in that of its first use anywhere.
    return " or ".join(sorted(expected.removeprefix("Expected ").split(" - Expected "), reverse=True))


def _underscored(argument: str) -> str:
    """An option as it is known, --latent_dim, where it is written --latent-dim."""
    option, *value = argument.split("=", 1)
    return "=".join([option[:2] + option[2:].replace("-", "_"), *value]) if option.startswith("--") else argument


if __name__ == "__main__":
    sys.exit(main())
