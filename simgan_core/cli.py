"""The `simgan` command line."""

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def root() -> None:
    """SimGAN reproduced: simulate, train, refine, evaluate, reproduce."""


def main() -> None:
    """Run the command line."""
    app()
