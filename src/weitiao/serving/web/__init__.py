"""The chat at ``/``: a page built from ``frontend/`` and the routes that serve it."""
