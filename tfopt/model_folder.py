"""Where SavedModels lie: the newest version of a model, and which model of a folder is meant."""

from __future__ import annotations

from pathlib import Path

from tfopt.errors import ConfigError

__all__ = ["newest_version", "served_model"]


def newest_version(path: Path) -> Path | None:
    """The SavedModel in a folder: the folder itself, or the highest number in a TF Serving model folder."""
    if (path / "saved_model.pb").is_file():
        return path
    versions = [
        folder
        for folder in (path.iterdir() if path.is_dir() else ())
        if folder.name.isdecimal() and (folder / "saved_model.pb").is_file()
    ]
    return max(versions, key=lambda folder: int(folder.name), default=None)


def served_model(directory: Path, model: str | None = None) -> tuple[Path, str, int | None]:
    """Finds out what is to be served and called.

    Args:
        directory: a folder of models, the folder of one model, or one of its versions.
        model: which one, where the folder holds several.

    Returns:
        The folder of models, the model's name, and the version, None for the one that the server chooses.

    Raises:
        ConfigError: if there is none, or it is not clear which.
    """
    directory = directory.resolve()
    if newest_version(directory) == directory:
        if not directory.name.isdecimal():
            raise ConfigError(
                f"A server needs NAME/VERSION/saved_model.pb, with a number for VERSION. Received: "
                f"{directory}. Export the model with tfopt.export_serving, or rename the folder."
            )
        return directory.parent.parent, directory.parent.name, int(directory.name)
    if newest_version(directory) is not None:
        return directory.parent, directory.name, None
    names = sorted(path.name for path in directory.iterdir() if newest_version(path) not in (None, path))
    if model in names or (model is None and len(names) == 1):
        return directory, model or names[0], None
    wanted = f"one of the models {', '.join(names)}: give it with model=" if names else "a folder of models"
    raise ConfigError(f"Expected {wanted}. Received: {model or directory}.")
