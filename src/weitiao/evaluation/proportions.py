"""How far a share of votes can be trusted."""

from math import comb, sqrt
from statistics import NormalDist

from weitiao.evaluation.resample import Estimate


def win_rate(wins: int, ties: int, losses: int, confidence: float) -> Estimate:
    """Return the share of wins, ties counting half, with its interval (Wilson 1927).

    A tie varies less than a win or a loss, so with many ties the interval is on the safe side.

    Raises:
        ZeroDivisionError: nobody voted.
    """
    votes = wins + ties + losses
    share = (wins + ties / 2) / votes
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * votes)) / (1 + z * z / votes)
    reach = z * sqrt(share * (1 - share) / votes + (z / (2 * votes)) ** 2) / (1 + z * z / votes)
    return Estimate(share, max(0.0, middle - reach), min(1.0, middle + reach))


def sign_test(wins: int, losses: int) -> float | None:
    """Return the exact two-sided p-value of as many wins and losses where both are as likely.

    Ties say nothing and are left out; None where there is nothing else.
    """
    votes = wins + losses
    if not votes:
        return None
    tail: int = sum(comb(votes, k) for k in range(min(wins, losses) + 1))
    # In whole numbers: 2.0 ** 1024 is more than a float holds.
    return min(1.0, tail / (1 << (votes - 1)))
