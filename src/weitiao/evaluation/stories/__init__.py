"""Stories for children: how hard they are to read, and how much in them is spoken.

Whether a story has a beginning, a turn and an end, and which values it tells, is for a judge
to say: see ``judge``.
"""
