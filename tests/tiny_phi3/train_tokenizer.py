"""Train the tiny model's SentencePiece tokenizer and write it in Phi-3's published form.

The text is half our own (exam items from the training pools) and half general English, so that ordinary prompts keep
ordinary lengths. Any English text will do; the committed tokenizer was trained on the passages of BoolQ's dev set
(Wikipedia), whose digest stands in the README beside this file. None of that text is in the repository.

    python tests/tiny_phi3/train_tokenizer.py OUT_DIR --english boolq/dev.jsonl
"""

from __future__ import annotations

import argparse
import io
import json
import random
from pathlib import Path

import sentencepiece
from exam_items import make_item
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

UNKNOWN = "<unk>"
N_PIECES = 3000
VOCAB_SIZE = 3072  # padded, as Phi-3 pads 32,011 tokens to 32,064 rows
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|assistant|>",
    "<|placeholder1|>",
    "<|placeholder2|>",
    "<|placeholder3|>",
    "<|placeholder4|>",
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if (message['role'] == 'user') %}"
    "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}"
    "{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}"
)


def exam_text(n_items: int, seed: int) -> list[str]:
    """Training-pool exam prompts, for piece statistics only."""
    rng = random.Random(f"tokenizer {seed}")
    lines = []
    for _ in range(n_items):
        form = rng.choice(("text", "letters"))
        item = make_item(rng, held=False, form=form, long=False, count=lambda s: len(s) // 4, window=256)
        lines.extend(item.prompt.split("\n"))
        lines.append(item.answer)
    return lines


def train_pieces(lines: list[str]) -> bytes:
    """A serialized SentencePiece BPE model with Llama's settings (byte fallback, single digits, no normalization)."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=N_PIECES,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        max_sentence_length=1 << 16,
        character_coverage=0.9995,
        num_threads=1,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=1,
    )
    return model.getvalue()


def merges_of(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """BPE merges of a SentencePiece model: every split of a piece into two pieces, ranked by the merged piece's id."""
    merges = []
    for piece, rank in vocab.items():
        pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        pairs = [(a, b) for a, b in pairs if a in vocab and b in vocab]
        pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges.extend((rank, pair) for pair in pairs)
    merges.sort(key=lambda entry: entry[0])
    return [pair for _, pair in merges]


def write_tokenizer(model: bytes, out: Path) -> None:
    """Write ``tokenizer.model``, ``tokenizer.json`` and ``tokenizer_config.json`` as Phi-3-medium publishes them."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.model").write_bytes(model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    mergeable = {
        p: i for p, i in vocab.items() if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))
    }
    tokenizer = Tokenizer(
        BPE(vocab=vocab, merges=merges_of(mergeable), unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<unk>", normalized=False), AddedToken("<s>", normalized=False)])
    tokenizer.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    tokenizer.add_special_tokens(
        [AddedToken(t, rstrip=t != "<|endoftext|>", normalized=False, special=True) for t in SPECIAL_TOKENS]
    )
    tokenizer.save(str(out / "tokenizer.json"))
    added = {
        str(i): {
            "content": t.content,
            "lstrip": t.lstrip,
            "normalized": t.normalized,
            "rstrip": t.rstrip,
            "single_word": t.single_word,
            "special": t.special,
        }
        for i, t in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": added,
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--english", type=Path, required=True, help="JSON lines with a 'passage' field")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with args.english.open(encoding="utf-8") as rows:
        english = [json.loads(row)["passage"] for row in rows]
    ours = exam_text(2500, args.seed)
    model = train_pieces(english + ours)
    write_tokenizer(model, args.out)
    print(f"{len(english)} passages, {len(ours)} exam lines, {N_PIECES} pieces -> {args.out}")


if __name__ == "__main__":
    main()
