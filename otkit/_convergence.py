"""The one warning of everything that iterates."""


class ConvergenceWarning(UserWarning):
    """An iteration stopped before it reached its tolerance; the message says what to change."""
