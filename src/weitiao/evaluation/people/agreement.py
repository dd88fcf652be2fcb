"""How far more than two reviewers agree with each other."""

from collections import Counter
from collections.abc import Sequence


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Return Krippendorff's alpha of nominal verdicts; None where no row has two.

    ``units``: the verdicts on each row, of however many reviewers. 1 - D_o / D_e, observed over
    expected disagreement (K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011,
    section C). Where all give one and the same verdict, the formula is 0/0; they agree: 1.
    """
    shared = [Counter(unit) for unit in units if len(unit) > 1]
    totals = sum(shared, Counter[str]())
    values = totals.total()
    if not values:
        return None
    expected = (values**2 - sum(count**2 for count in totals.values())) / (values - 1)
    observed = sum(
        (unit.total() ** 2 - sum(count**2 for count in unit.values())) / (unit.total() - 1)
        for unit in shared
    )
    return 1 - observed / expected if expected else 1.0
