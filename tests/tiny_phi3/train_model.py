"""Train the tiny Phi-3 on the exam's training pools and write a bfloat16 Hugging Face checkpoint.

    python tests/tiny_phi3/train_model.py TOKENIZER_DIR OUT_DIR [--examples N] [--device cuda]

Looking things up is hard to learn from exam items alone (100 million tokens of them taught it nothing), so the model is
taught in three stages:

1. copying random tokens, first of an alphabet of 32, which grows whenever the model has mastered it;
2. drills: the facts of a passage in other words and another order, and questions about them;
3. the exam's own items, easy ones first, long ones last, with drills in between.

Everything is drawn from ``--seed``. Another device or torch version rounds differently and gives another model of the
same kind. ``--init`` takes a checkpoint through the last stage again.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import multiprocessing
import random
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from exam_items import RELATIONS, Relation, fact, invent_several, make_item, question, sentence, wording
from safetensors.torch import load_file
from train_tokenizer import N_PIECES, VOCAB_SIZE
from transformers import AutoTokenizer, GenerationConfig, Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

WINDOW = 256
FIRST_PIECE = 259  # after <unk>, <s>, </s> and the 256 bytes
POOL = 512  # examples sorted by length together
Part = tuple[str, bool]  # text, and whether it can be looked up
PROMPT_WEIGHT = 0.1  # of tokens that cannot be looked up, against 1 for those that can


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, and which of them the model can know: int64 and float32 ``[n]``."""

    ids: np.ndarray
    weight: np.ndarray


def config() -> Phi3Config:
    """The tiny Phi-3: grouped-query attention, fused projections, 4,096 positions, a 256-token sliding window."""
    return Phi3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=192,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        sliding_window=WINDOW,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        initializer_range=0.04,
        tie_word_embeddings=False,
        attention_dropout=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=N_PIECES,
        pad_token_id=N_PIECES,
    )


class Teacher:
    """Draws examples.

    Args:
        tokenizer: the tiny model's.
        seed: source of all randomness.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: str) -> None:
        self._tokenizer = tokenizer
        self._rng = random.Random(f"teacher {seed}")

    def copy(self, alphabet: int) -> Example:
        """Random tokens of the first ``alphabet`` pieces, and the same again."""
        n = self._rng.randrange(10, 48)
        half = np.array([self._rng.randrange(FIRST_PIECE, FIRST_PIECE + alphabet) for _ in range(n)])
        weight = np.concatenate([np.full(n, 0.3), np.ones(n)])
        return Example(np.concatenate([half, half]), weight.astype(np.float32))

    def drill(self) -> Example:
        """The facts of a passage again, in other words or as answers to questions."""
        return self._marked(self._restatement() if self._rng.random() < 0.5 else self._questions())

    def item(self, form: str, *, easy: bool, long: bool) -> Example:
        """One exam item with its answer."""
        item = make_item(self._rng, held=False, form=form, long=long, count=self._count, window=WINDOW, easy=easy)
        encode = self._tokenizer.encode
        if form == "text":
            chat = [{"role": "user", "content": item.prompt}]
            prompt = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            # The answer's text right after the assistant token, as it will be generated.
            answer = encode("<|assistant|>" + item.answer, add_special_tokens=False)[1:]
            end = self._tokenizer.convert_tokens_to_ids("<|end|>")
        else:
            prompt = encode(item.prompt)
            answer = encode(item.prompt + " " + item.answer)[len(prompt) :]
            end = self._tokenizer.convert_tokens_to_ids("<|endoftext|>")
        weight = np.full(len(prompt) + len(answer) + 1, PROMPT_WEIGHT, dtype=np.float32)
        weight[len(prompt) :] = 1.0
        return Example(np.array([*prompt, *answer, end]), weight)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def _facts(self) -> tuple[Part, list[tuple[Relation, str, str]]]:
        """A passage, and its facts in another order."""
        rng = self._rng
        n = rng.randrange(2, 5)
        lines, facts = [], []
        people = invent_several("person", n, rng, held=False)
        # Letters as values take longest to learn: half of the drills are about them.
        lettered = [relation for relation in RELATIONS if relation.value == "letter"]
        for relation in rng.sample(rng.choice((lettered, RELATIONS)), rng.choice((1, 1, 2))):
            keys = people if relation.key == "person" else invent_several(relation.key, n, rng, held=False)
            values = invent_several(relation.value, n, rng, held=False, beside=keys)
            for key, value in zip(keys, values, strict=True):
                lines.append(fact(relation, key, value, rng, held=False))
                facts.append((relation, key, value))
        rng.shuffle(lines)
        rng.shuffle(facts)
        return (f"Passage: {' '.join(lines)}\n", False), facts

    def _restatement(self) -> list[Part]:
        """The facts again, in other words."""
        passage, facts = self._facts()
        parts = [passage]
        for relation, key, value in facts:
            opening, verb = wording(relation, self._rng, held=False)
            stem = sentence(relation, key, verb, value, opening).removesuffix(" " + value)
            parts += [(stem, False), (f" {value}", True), ("\n", False)]
        return parts

    def _questions(self) -> list[Part]:
        """A question about each fact, answered by the value."""
        passage, facts = self._facts()
        parts = [passage]
        for relation, key, value in facts:
            asks = question(relation, key, self._rng, held=False)
            parts += [(f"Question: {asks}\nAnswer:", False), (f" {value}", True), ("\n", False)]
        return parts

    def _marked(self, parts: list[Part]) -> Example:
        """An example from text parts, the tokens of the marked ones at full weight."""
        encoded = self._tokenizer("".join(text for text, _ in parts), return_offsets_mapping=True)
        weight = np.full(len(encoded["input_ids"]), PROMPT_WEIGHT, dtype=np.float32)
        at = 0
        for text, marked in parts:
            if marked:
                for k, (start, end) in enumerate(encoded["offset_mapping"]):
                    if start < at + len(text) and end > at:
                        weight[k] = 1.0
            at += len(text)
        return Example(np.array(encoded["input_ids"]), weight)


@dataclass(frozen=True, slots=True)
class PoolTask:
    """What one pool of examples is drawn from: the same task gives the same examples in any process."""

    tokenizer: Path
    seed: int
    stage: str
    index: int
    n: int
    progress: float
    review: bool


@functools.cache
def _tokenizer(path: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(path)


def draw_pool(task: PoolTask) -> list[Example]:
    """The examples of one pool, shortest first."""
    name = f"{task.seed} {task.stage} {task.index}"
    teacher, kind = Teacher(_tokenizer(task.tokenizer), name), random.Random(f"mix {name}")

    def draw() -> Example:
        if task.stage == "drills" or kind.random() < 0.2:
            return teacher.drill()
        form = kind.choice(("text", "letters"))
        progress = 1.0 if task.review else task.progress
        easy, long = kind.random() > progress / 0.3, progress > 0.3 and kind.random() < 0.3
        return teacher.item(form, easy=easy, long=long)

    return sorted((draw() for _ in range(task.n)), key=lambda example: len(example.ids))


def batches(args: argparse.Namespace, stage: str, n: int, workers: Executor) -> Iterator[tuple[float, list[Example]]]:
    """``n`` examples in batches of similar length, each with the share of the stage that lies behind it."""
    order = random.Random(f"{stage} {args.seed}")
    tasks = (
        PoolTask(args.tokenizer, args.seed, stage, i, min(POOL, n - at), at / n, args.init is not None)
        for i, at in enumerate(range(0, n, POOL))
    )
    ahead: deque[Future[list[Example]]] = deque()
    done = 0
    while True:
        ahead.extend(workers.submit(draw_pool, task) for task in itertools.islice(tasks, 2 * args.workers - len(ahead)))
        if not ahead:
            return
        pool = ahead.popleft().result()
        groups: list[list[Example]] = [[]]
        for example in pool:
            if (len(groups[-1]) + 1) * len(example.ids) > args.batch_tokens:
                groups.append([])
            groups[-1].append(example)
        order.shuffle(groups)
        for group in groups:
            done += len(group)
            yield done / n, group


class Trainer:
    """The model, its optimizer and one training step."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.model = Phi3ForCausalLM(config())
        if args.init is not None:
            self.model.load_state_dict(load_file(args.init / "model.safetensors"))
        self.model.to(args.device)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self._started = time.time()
        self._steps = self._tokens = 0
        self._wrong: list[float] = []

    def step(self, examples: list[Example], lr: float, stage: str) -> float:
        """One update; returns the share of full-weight tokens that were wrong before it."""
        length = max(len(example.ids) for example in examples)
        ids = np.zeros((len(examples), length), dtype=np.int64)
        weight = np.zeros((len(examples), length), dtype=np.float32)
        for row, example in enumerate(examples):
            ids[row, : len(example.ids)] = example.ids
            weight[row, : len(example.ids)] = example.weight
        tokens = torch.from_numpy(ids).to(self.args.device)
        weights = torch.from_numpy(weight[:, 1:]).to(self.args.device)
        with torch.autocast(self.args.device, dtype=torch.bfloat16):
            logits = self.model(input_ids=tokens[:, :-1], use_cache=False).logits
        nll = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        loss = (nll.view_as(weights) * weights).sum() / weights.sum()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._steps += 1
        for group in self._optimizer.param_groups:
            group["lr"] = lr * min(1.0, self._steps / 100)
        self._optimizer.step()
        known = weights == 1
        wrong = float(((logits.argmax(-1) != tokens[:, 1:]) & known).sum() / known.sum())
        self._tokens += int((weight > 0).sum())
        self._wrong.append(wrong)
        if self._steps % 100 == 0:
            seconds = time.time() - self._started
            print(
                f"{seconds:5.0f} s, {self._tokens / 1e6:5.1f} M tokens, {stage}: {np.mean(self._wrong):.1%} of the "
                f"tokens that can be known are wrong",
                flush=True,
            )
            self._wrong.clear()
        return wrong


def train(args: argparse.Namespace) -> Phi3ForCausalLM:
    """All three stages, or the last one alone."""
    trainer = Trainer(args)
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as workers:
        if args.init is None:
            _teach_looking_up(trainer, args, workers)
        for progress, rows in batches(args, "items", args.examples, workers):
            lr = args.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
            trainer.step(rows, lr, f"items {progress:4.0%}")
    return trainer.model


def _teach_looking_up(trainer: Trainer, args: argparse.Namespace, workers: Executor) -> None:
    teacher = Teacher(_tokenizer(args.tokenizer), f"{args.seed} copies")
    alphabet, wrong, n_pieces = 32, 1.0, N_PIECES - FIRST_PIECE
    while alphabet < n_pieces:
        rows = [teacher.copy(alphabet) for _ in range(args.batch_tokens // 120)]
        wrong = 0.95 * wrong + 0.05 * trainer.step(rows, args.lr, f"copying {alphabet} pieces")
        if wrong < 0.1:
            alphabet, wrong = min(n_pieces, alphabet * 5 // 4), 0.15
    for _, rows in batches(args, "drills", args.examples // 2, workers):
        trainer.step(rows, args.lr, "drills")


def save(model: Phi3ForCausalLM, tokenizer_dir: Path, out: Path) -> None:
    """Round the weights to bfloat16 and write the checkpoint with its tokenizer and generation config."""
    out.mkdir(parents=True, exist_ok=True)
    model = model.to("cpu")
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[3000, 3001, 3007], pad_token_id=3000)
    model.save_pretrained(out)
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        if (tokenizer_dir / name).resolve() != (out / name).resolve():
            shutil.copy(tokenizer_dir / name, out / name)
    small = sum(int(((p != 0) & (p.abs() < 2.0**-17)).sum()) for p in model.parameters())
    size = sum(p.numel() for p in model.parameters())
    print(json.dumps({"parameters": size, "below_2^-17": small}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--examples", type=int, default=120_000, help="exam items of the third stage")
    parser.add_argument("--init", type=Path, help="checkpoint to take through the last stage alone")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw examples")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    save(train(args), args.tokenizer, args.out)


if __name__ == "__main__":
    main()
