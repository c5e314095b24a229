"""The command as a user starts it, in this process."""

from otkit_vae import cli


def command(*arguments):
    return cli.main(list(map(str, arguments)))


def train(*arguments):
    return command("train", "--progress", "false", *arguments)
