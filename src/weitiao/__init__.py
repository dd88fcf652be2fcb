"""weitiao: from a data file to a fine-tuned model that is measured and served.

The rooms of the house, left to right. A room imports only rooms to its left;
rooms parted by ``|`` never import each other. ``tests/test_rooms.py`` holds it.

    words < errors < events < endpoint < records < plan < runs < models
    < training | evaluation < export | serving < api < cli
"""

__version__ = "0.1.0"

ROOM_ORDER = (
    ("words",),
    ("errors",),
    ("events",),
    ("endpoint",),
    ("records",),
    ("plan",),
    ("runs",),
    ("models",),
    ("training", "evaluation"),
    ("export", "serving"),
    ("api",),
    ("cli",),
)
"""Groups of rooms from left to right; rooms of one group never import each other."""
