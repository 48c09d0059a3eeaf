"""Tokens sent, unique and computed; what is measured as noise; what a prediction's numbers are made of."""

from __future__ import annotations

from benchmarks.breaks.form import Break

PREDICT = "tests/eval/test_predict.py::test_"
COUNTS = "tests/orin_runner/engine/test_counts.py::test_"
SIZES = "tests/orin_runner/engine/test_near_tie_sizes.py::test_"
REFERENCE = "tests/eval/test_reference.py::test_"
TRUNCATION = "tests/eval/test_truncation.py::test_"

TOKENS = (
    Break(
        "unique: drafts are counted",
        "orin_runner/engine/engine.py",
        "[text.computed() for text in texts])",
        "[np.append(text.prefix(), c) for text in texts for c in text.candidates])",
        (f"{COUNTS}drafts_change_neither_what_is_sent_nor_what_is_unique",),
    ),
    Break(
        "sent: prompts of texts are left out",
        "orin_runner/engine/engine.py",
        "stats.sent = wanted.sent + sum(len(r.prompt) for r in requests if isinstance(r, GenerateRequest))",
        "stats.sent = wanted.sent",
        (f"{COUNTS}drafts_change_neither_what_is_sent_nor_what_is_unique",),
    ),
    Break(
        "sent: a text's last token counts without a stop token behind it",
        "orin_runner/engine/greedy_text.py",
        "None if len(self.steps) > len(self.tokens) else max(0, len(self.tokens) - 1)",
        "None",
        (f"{COUNTS}the_last_token_of_a_text_is_computed_for_a_stop_token_only",),
    ),
    Break(
        "greedy: the margin is the last token's",
        "orin_runner/engine/greedy_text.py",
        "self.margin = min(self.margin, lead)",
        "self.margin = lead",
        (f"{COUNTS}a_position_that_stands_leaves_the_drafts_verified",),
    ),
    Break(
        "greedy: the log-probability is the last token's",
        "orin_runner/engine/greedy_text.py",
        "self.logprob += logprob",
        "self.logprob = logprob",
        (f"{COUNTS}a_position_that_stands_leaves_the_drafts_verified",),
    ),
    Break(
        "computed: what is computed again is an answer's",
        "orin_runner/engine/engine.py",
        "stats.computed, stats.checked, stats.device = answers.tokens, checks.tokens, answers",
        "stats.computed, stats.checked, stats.device = answers.tokens + checks.tokens, 0, answers",
        (f"{COUNTS}drafts_change_neither_what_is_sent_nor_what_is_unique",),
    ),
    Break(
        "sent: of a run's files, a continuation's last token is counted",
        "eval/sent_tokens.py",
        "for suffix in (tokens[:-1] for tokens in request.continuations)}",
        "for suffix in (tokens for tokens in request.continuations)}",
        ("tests/eval/test_accounting.py::test_an_interrupted_run_says_what_passed",),
    ),
    Break(
        "unique: equal beginnings are counted once for each path",
        "eval/sent_tokens.py",
        "unique += n - shared",
        "unique += n",
        ("tests/eval/test_progress.py::test_ctrl_c_behind_the_last_answer_is_noticed",),
    ),
    Break(
        "noise: a score's near-tie is five root mean squares",
        "orin_runner/engine/noise.py",
        "NOISES_OF_A_SCORE = 6",
        "NOISES_OF_A_SCORE = 5",
        (f"{SIZES}a_score_is_a_near_tie_below_six_root_mean_squares",),
    ),
    Break(
        "noise: mean of the differences for their root mean square",
        "orin_runner/engine/noise.py",
        "float(np.sqrt((found**2).mean()))",
        "float(np.abs(found).mean())",
        (f"{SIZES}a_score_is_a_near_tie_below_six_root_mean_squares",),
    ),
    Break(
        "noise: two samples weigh the same whatever their sizes",
        "orin_runner/runner.py",
        "self.n * self.rms**2 + other.n * other.rms**2",
        "n * (self.rms**2 + other.rms**2) / 2",
        (f"{SIZES}two_samples_are_one",),
    ),
    Break(
        "noise: the near-tie of a margin grows with its tokens, not with their root",
        "eval/predict.py",
        "noise = np.sqrt((lengths[[best, second]] / divisors[first][[best, second]] ** 2).sum())",
        "noise = (lengths[[best, second]] / divisors[first][[best, second]] ** 2).sum()",
        (f"{PREDICT}a_margin_moves_by_the_root_of_its_tokens",),
    ),
    Break(
        "prediction: characters for bytes",
        "eval/predict.py",
        "len(text.encode()) for text",
        "len(text) for text",
        (f"{PREDICT}sums_by_characters_bytes_and_tokens",),
    ),
    Break(
        "prediction: the space in front of a choice is a character of it",
        "eval/predict.py",
        'texts = [choice.removeprefix(" ") for choice in doc.choices]',
        "texts = list(doc.choices)",
        (f"{PREDICT}sums_by_characters_bytes_and_tokens",),
    ),
    Break(
        "prediction: the margin is over the worst choice",
        "eval/predict.py",
        "best, second = ranked[:2] if known",
        "best, second = ranked[[0, -1]] if known",
        (f"{PREDICT}a_margin_moves_by_the_root_of_its_tokens",),
    ),
    Break(
        "prediction: TruthfulQA's mass is not of all answers",
        "eval/predict.py",
        "mass[true].sum() / mass.sum()",
        "mass[true].sum() / mass.max()",
        (f"{PREDICT}the_mass_of_the_true_answers",),
    ),
    Break(
        "reference: padding is counted as computed",
        "eval/reference.py",
        "self.computed += int(mask.sum())",
        "self.computed += int(mask.numel())",
        (f"{REFERENCE}a_section_of_scores_sends_each_continuation",),
    ),
    Break(
        "reference: texts are not counted as computed",
        "eval/reference.py",
        "self.computed += decode_steps",
        "self.computed += 0",
        (f"{REFERENCE}computed_is_what_the_model_was_given",),
    ),
    Break(
        "truncation: one token too many is cut in front of a choice",
        "eval/truncation.py",
        "[-n_positions - 1 :]",
        "[-n_positions :]",
        (f"{TRUNCATION}a_letter_is_only_predicted",),
    ),
    Break(
        "truncation: the longest choice decides for all",
        "eval/truncation.py",
        "[-n_positions - 1 :] for",
        "[beyond:] for",
        (f"{TRUNCATION}each_choice_keeps_as_much_of_the_prompt_as_its_length_leaves",),
    ),
    Break(
        "truncation: BOS stays in front of a text",
        "eval/truncation.py",
        "prompt=request.prompt[beyond:])",
        "prompt=np.concatenate([request.prompt[:1], request.prompt[beyond + 1 :]]))",
        (f"{TRUNCATION}a_text_keeps_room_for_as_many_tokens_as_it_may_have",),
    ),
    Break(
        "truncation: skipped items count as wrong",
        "eval/report/section.py",
        "total, table = accuracy_table(asked)",
        "total, table = accuracy_table(predictions)",
        (f"{TRUNCATION}accuracy_is_of_what_was_asked_and_truncated_prompts_apart",),
    ),
)
