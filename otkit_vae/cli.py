"""The ``otkit-vae`` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the given arguments (those of the process by default); return its exit status."""
    try:
        import jsonargparse
        import pytorch_lightning  # noqa: F401
    except ImportError as error:
        print(f"otkit-vae: error: {error}; install the train extra: pip install 'otkit[train]'", file=sys.stderr)
        return 2
    from otkit import __version__
    from otkit_vae.config import TrainConfig

    training = jsonargparse.ArgumentParser(
        exit_on_error=False,
        description="Train a VAE with a latent penalty, and leave a run folder: config.yaml, checkpoint.ckpt, "
        "metrics.csv, reconstructions.png, samples.png, latent.png. Prints a table of numbers on held-out data, "
        "those of the codes beside their values if codes and prior agreed.",
        epilog="example: otkit-vae train --penalty kl --epochs 30 --seed 1 --out runs/kl",
    )
    training.add_argument("--config", action="config", help="A YAML file of options, such as the config.yaml of a run.")
    training.add_class_arguments(TrainConfig)
    parser = jsonargparse.ArgumentParser(
        prog="otkit-vae",
        exit_on_error=False,
        version=f"otkit {__version__}",
        description="Variational auto-encoders with Wasserstein penalties.",
    )
    parser.add_subcommands(dest="command").add_subcommand("train", training, help="Train a model on images.")

    try:
        options = parser.parse_args(arguments)
        chosen = options.train.as_dict()
        chosen.pop("config")
        config = TrainConfig(**chosen)
        # Imported only now: the engine takes seconds to load, and --help should not.
        from otkit_vae.training import train

        run = train(config)
    except KeyboardInterrupt:
        print("otkit-vae: interrupted; what the run folder has is kept, its checkpoint included", file=sys.stderr)
        return 130
    except (jsonargparse.ArgumentError, ValueError, TypeError, ArithmeticError, OSError, MemoryError) as error:
        print(f"otkit-vae: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(run.evaluation.table())
    print(f"\n{run.folder}")
    for file in sorted(run.folder.iterdir()):
        print(f"  {file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
