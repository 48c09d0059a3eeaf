"""How much of a candidate is verified at a time.

Only a candidate that begins with the text so far is proposed, and no more of it than is likely to be accepted. So a
model that answers with none of the candidates computes next to nothing for them, on any device: where its first token
begins none, nothing at all.
"""

from __future__ import annotations

import math

from orin_runner.engine.greedy_text import GreedyText

ACCEPTED_BEFORE, REFUSED_BEFORE = 8, 1
"""A run begins as if so many tokens had been accepted and so many drafts refused: with drafts of up to 11 tokens."""
LEAST_CHANCE = 0.25
"""The last token that is proposed is accepted with this probability at least. The decode step that it saves costs about
as much as one proposed token while prompts share its batch, and several where it has a batch for itself."""


class Drafts:
    """Proposes tokens, by how many of those before have been accepted.

    Each token that was accepted is a success, and the first of a draft that was not a failure. If all come alike, the
    n-th token of a draft is accepted with the n-th power of the share of successes.
    """

    def __init__(self) -> None:
        self._accepted, self._refused = ACCEPTED_BEFORE, REFUSED_BEFORE

    @property
    def longest(self) -> int:
        """Tokens to propose at most; at least one, so that a change is noticed."""
        share = self._accepted / (self._accepted + self._refused)
        return max(1, math.floor(math.log(LEAST_CHANCE) / math.log(share)))

    def propose(self, text: GreedyText, most: int) -> list[int]:
        """At most ``most`` tokens that ``text`` may go on with; often none."""
        ahead = text.ahead()
        found: list[int] = ahead[: min(self.longest, most)].tolist()
        return found

    def count(self, accepted: int, *, refused: bool) -> None:
        """Of a draft so many tokens were accepted; ``refused``: the one after these was not."""
        self._accepted += accepted
        self._refused += refused
