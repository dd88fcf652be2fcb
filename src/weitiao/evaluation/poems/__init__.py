"""Classical poems: form, tones, rhyme, and the reason for each fault on the poem itself."""

from weitiao.evaluation.poems.poem import Poem
from weitiao.evaluation.poems.read import read_poem
from weitiao.evaluation.poems.show import as_text

__all__ = ["Poem", "as_text", "read_poem"]
