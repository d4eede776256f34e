"""Errors that a user can mend: each says in one line what is wrong and what to do."""


class UserError(Exception):
    """A mistake of the user's; a program ends with its message alone."""


class ConfigError(UserError, ValueError):
    """A configuration that can't be used; the message names field and value."""


class ArgumentError(UserError, ValueError):
    """An argument that can't be used; the message names it, its value, the choices."""


class DataError(UserError, ValueError):
    """Data that can't be used or isn't there; the message says what to do."""


class CheckpointError(UserError, RuntimeError):
    """A state that could not be saved or read back."""


class Diverged(UserError, RuntimeError):
    """The loss is no longer a finite number."""


def words(error: Exception) -> str:
    """What a user is to read of an error: of the system's, its file and why."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    return ": ".join(map(str, filter(None, (error.filename, error.strerror))))
