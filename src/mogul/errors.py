"""The one exception for what a user handed in."""


class InputError(ValueError):
    """The input cannot be used; the message says what came, what is allowed, and the remedy."""
