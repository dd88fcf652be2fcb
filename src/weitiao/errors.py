"""Errors a user can mend: one sentence that names the value and the next step."""

from weitiao.words import Language, say


class WeitiaoError(Exception):
    """A user's mistake or a limit of the machine, told in one sentence.

    ``key`` is an entry of the catalogue, so that the sentence exists in each
    language; ``values`` fill it in and are kept for programs that catch the error.
    """

    exit_code = 2

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(key, values)
        self.key = key
        self.values = values

    def sentence(self, language: Language | None = None) -> str:
        """Return the sentence in ``language`` (by default the one spoken now)."""
        return say(self.key, language, **self.values)

    def __str__(self) -> str:
        return self.sentence()


class DataError(WeitiaoError):
    """A data file that cannot be read, or rows that cannot be used."""


class RecipeError(WeitiaoError):
    """A recipe or an option that cannot be understood."""


class PlanError(WeitiaoError):
    """What was asked does not fit this machine."""


class ModelError(WeitiaoError):
    """A model that cannot be found, loaded or used."""


class RunError(WeitiaoError):
    """A run directory that cannot be made, read or written."""


class TrainingError(WeitiaoError):
    """Training that had to stop: a loss that is not a number, a killed run."""

    exit_code = 3
