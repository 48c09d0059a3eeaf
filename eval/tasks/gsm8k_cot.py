r"""GSM8K with chain of thought: the eight worked examples of Wei et al. 2022 (arXiv:2201.11903) before each question.

Data: as ``gsm8k``, but for the training split, which is not read. A worked row of the prompt:

    Q: If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?
    A: There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.

    [seven more] [the question itself, ending in "A:"]

White space and protocol are lm-evaluation-harness's (0.4.13, ``gsm8k_cot``): the examples are always the same and in
the same order, so ``--shots N`` takes the first N; one space stands behind "A:", a blank line between examples. The
text ends at "Q:", "</s>" or "<|im_end|>". Strict match takes the first number behind "The answer is ", which at the end
of the text loses its last character; the rest is as with ``gsm8k``.

Phi-3's report has 8-shot chain of thought, and does not say with which examples. These are the usual ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat

from eval.tasks.base import LoadOptions, shots_of
from eval.tasks.gsm8k import GSM8K

EXAMPLES = tuple(
    " ".join(example.split()).replace(" A: ", "\nA: ")
    for example in """
    Q: There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are done, there
    will be 21 trees. How many trees did the grove workers plant today?
    A: There are 15 trees originally. Then there were 21 trees after some more were planted. So there must have been
    21 - 15 = 6. The answer is 6.

    Q: If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?
    A: There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5. The answer is 5.

    Q: Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in total?
    A: Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After eating 35, they
    had 74 - 35 = 39. The answer is 39.

    Q: Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many lollipops did Jason
    give to Denny?
    A: Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he gave Denny 20 - 12 = 8. The
    answer is 8.

    Q: Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he have now?
    A: Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is 4 more toys. 5 + 4 = 9. The
    answer is 9.

    Q: There were nine computers in the server room. Five more computers were installed each day, from monday to
    thursday. How many computers are now in the server room?
    A: There were originally 9 computers. For each of 4 days, 5 more computers were added. So 5 * 4 = 20 computers
    were added. 9 + 20 is 29. The answer is 29.

    Q: Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How many golf balls
    did he have at the end of wednesday?
    A: Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35. After losing 2 more, he
    had 35 - 2 = 33 golf balls. The answer is 33.

    Q: Olivia has $23. She bought five bagels for $3 each. How much money does she have left?
    A: Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 dollars left.
    23 - 15 is 8. The answer is 8.
    """.split("\n\n")
)
"""The prompts of Wei et al."""


class GSM8KCoT(GSM8K):
    """The numbers behind "The answer is"."""

    name = "gsm8k_cot"
    title = "GSM8K, chain of thought"
    metric = "exact match of the number behind 'The answer is'"
    default_shots = 8
    until = ("Q:", "</s>", "<|im_end|>")
    strict = re.compile(r"The answer is (-?[0-9.,]+).")

    def _asked(self, question: str) -> str:
        return f"Q: {question}\nA:"

    def _starts(self, options: LoadOptions) -> Iterator[str]:
        shots = shots_of(self, options, len(EXAMPLES))
        return repeat("".join(f"{example}\n\n" for example in EXAMPLES[:shots]))
