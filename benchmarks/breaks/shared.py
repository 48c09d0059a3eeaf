"""Runs that several share: contexts in turn, replicas, and shards that are put together."""

from __future__ import annotations

from benchmarks.breaks.form import Break

SHARES = "tests/orin_runner/batching/test_shares.py::test_"
GIVEN = "tests/orin_runner/engine/test_give_back.py::test_"
REPLICAS = "tests/orin_runner/workers/test_replicas.py::test_"
SUBMISSIONS = "tests/orin_runner/engine/test_submissions.py::test_"
TREE = "tests/orin_runner/batching/test_tree.py::test_"
SHARDS = "tests/orin_runner/cli/test_shards.py::test_"

SHARED = (
    Break(
        "contexts: cells are copied while a decode call looks for them",
        "orin_runner/engine/executor.py",
        "        self._await_submission()\n        for copy",
        "        for copy",
        (f"{SUBMISSIONS}submit_returns_before_the_backend_does_and_copies_wait_for_it",),
    ),
    Break(
        "contexts: a refused batch is taken for computed",
        "orin_runner/engine/submissions.py",
        "        return self._submitted.result()",
        "        return (0.0, 0.0) if self._submitted.exception() else self._submitted.result()",
        (f"{SUBMISSIONS}a_refused_batch_is_told_by_the_next_call",),
    ),
    Break(
        "contexts: a submission is counted each time it is waited for",
        "orin_runner/engine/executor.py",
        "            self._counted = True\n            self._clock",
        "            self._clock",
        (f"{SUBMISSIONS}a_submission_is_counted_once_and_not_as_waiting",),
    ),
    Break(
        "contexts: a context is freed while a thread is in it",
        "orin_runner/engine/submissions.py",
        "        wait([self._submitted])\n",
        "        return\n",
        (f"{SUBMISSIONS}rest_waits_for_the_thread",),
    ),
    Break(
        "contexts: each further part may compute as much again as all together",
        "orin_runner/batching/tree.py",
        "MOST_AGAIN * self.n_unique / (n_parts - 1)",
        "MOST_AGAIN * self.n_unique",
        (f"{TREE}all_further_parts_together_compute_little_again",),
    ),
    Break(
        "replicas: what a lost one leaves is lost",
        "orin_runner/batching/shares.py",
        "            if unanswered:\n",
        "            if unanswered and worker < 0:\n",
        (f"{SHARES}every_request_is_handed_out_once",),
    ),
    Break(
        "replicas: a request is given back in part",
        "orin_runner/batching/packer.py",
        "np.where(barred[first:end], np.inf,",
        "np.where(barred[first:end] & (end < 0), np.inf,",
        (f"{GIVEN}each_request_is_answered_or_given_back",),
    ),
    Break(
        "replicas: what is given back is computed all the same",
        "orin_runner/batching/packer.py",
        "self._end = first + best",
        "return range(first + best, end)",
        (f"{GIVEN}what_is_given_back_is_not_computed",),
    ),
    Break(
        "replicas: what a batch has begun is given back",
        "orin_runner/batching/packer.py",
        "first, end = self._tree, self._path + 1, self._end",
        "first, end = self._tree, max(0, self._path - 1), self._end",
        (f"{GIVEN}each_request_is_answered_or_given_back",),
    ),
    Break(
        "replicas: nobody is asked for what has not begun",
        "orin_runner/batching/shares.py",
        "            self._ask_back(richest)\n",
        "            pass\n",
        (f"{SHARES}all_end_together_and_compute_little_twice",),
    ),
    Break(
        "replicas: requests lose their bounds on the way to a worker",
        "orin_runner/workers/packed_requests.py",
        "GenerateRequest(prompt, stop, max_new_tokens, tuple(paths), until)",
        "GenerateRequest(prompt, stop, max_new_tokens, tuple(paths))",
        ("tests/orin_runner/workers/test_packed_requests.py::test_requests_come_out_as_they_went_in",),
    ),
    Break(
        "replicas: cuts are made without a look at what is shared",
        "orin_runner/batching/shares.py",
        "cost = self.shared[places] + AWAY_COST",
        "cost = AWAY_COST",
        (f"{SHARES}stretches_are_of_equal_work_and_share_little",),
    ),
    Break(
        "replicas: unique counts what pieces share once for each",
        "orin_runner/workers/replicas.py",
        "unique=stats.unique - self.begun.unique",
        "unique=stats.unique",
        (f"{REPLICAS}unique_tokens_of_scores_do_not_depend_on_the_number",),
    ),
    Break(
        "replicas: computed forgets the pieces that are over",
        "orin_runner/workers/replicas.py",
        "self.cost = self.cost.together(self.piece)",
        "self.cost = self.piece",
        (f"{REPLICAS}what_one_has_not_begun_is_handed_on",),
    ),
    Break(
        "replicas: seconds are summed",
        "orin_runner/runner.py",
        "            clocks=longer.clocks,\n",
        "",
        (f"{REPLICAS}what_two_cost_that_computed_at_once",),
    ),
    Break(
        "replicas: the noise is measured on every piece",
        "orin_runner/workers/replicas.py",
        "            goes_on = True\n",
        "            goes_on = False\n",
        (f"{REPLICAS}what_one_has_not_begun_is_handed_on",),
    ),
    Break(
        "shards: unique counts what two share twice",
        "eval/runs/merge.py",
        'tokens["unique"] -= sum(',
        'tokens["unique"] -= 0 * sum(',
        (f"{SHARDS}merged_shards_are_the_whole_run",),
    ),
    Break(
        "shards: the clock is the first one's",
        "eval/runs/merge.py",
        "slowest = max(sections,",
        "slowest = min(sections,",
        (f"{SHARDS}merged_shards_are_the_whole_run",),
    ),
    Break(
        "shards: one that is not complete is taken",
        "eval/runs/merge.py",
        "        _check_complete(run)\n",
        "",
        (f"{SHARDS}shards_that_make_no_whole_are_refused", f"{SHARDS}a_shard_is_resumed_as_one"),
    ),
)
