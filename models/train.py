"""Train the demonstration model from the repository's own text and write it as GGUF.

    python models/train.py --seed 1 --out models/parallelix-demo.gguf

One seed gives one file on one kind of machine: the text, the first weights and the order of training follow from it.
The tokenizer has a seed of its own, so that files of different seeds share it and can be compared token by token.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from corpus import ASSISTANT, SYSTEM, USER, Document, Writer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
WIDTH = 160
LAYERS = 4
HEADS = 5
FEED_FORWARD = 448
CONTEXT = 1024
SHORT_CONTEXT = 256
ROPE_BASE = 10000.0
NORM_EPSILON = 1e-5
TOKENIZER_SEED = 20260101
ASKED_SHARE = 0.2
"""Questions are read to be answered: learning to write them takes time from learning to answer."""

BEGIN, TURN_START, TURN_END = "<|begin|>", "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = (BEGIN, TURN_START, TURN_END)
# ChatML letter for letter as it is usually published: runtimes that compare templates with a list recognise it.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The pre-tokenizer that GGUF calls "llama-bpe".
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Part(NamedTuple):
    text: str
    share: float
    """How much its tokens count in training."""


def rendered(document: Document) -> list[Part]:
    """Cut only beside control tokens, where a tokenizer cuts anyway."""
    if document.turns[0][0] not in (USER, SYSTEM, ASSISTANT):
        return [Part(f"{BEGIN}{document.text}{TURN_END}", 1.0)]
    turns = (
        Part(f"{TURN_START}{role}\n{content}{TURN_END}\n", 1.0 if role == ASSISTANT else ASKED_SHARE)
        for role, content in document.turns
    )
    return [Part(BEGIN, ASKED_SHARE), *turns]


def train_tokenizer(documents: int = 30_000) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in CONTROL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    written = Writer(TOKENIZER_SEED).documents()
    # Each distinct document once: repeated essays would otherwise fill the vocabulary.
    texts = {content for _ in range(documents) for _, content in next(written).turns}
    roles = [f"{role}\n" for role in (USER, ASSISTANT, SYSTEM)] * documents
    tokenizer.train_from_iterator([*sorted(texts), *roles], trainer)
    return tokenizer


class Weights(NamedTuple):
    embedding: jax.Array
    attention_norm: jax.Array
    query: jax.Array
    key: jax.Array
    value: jax.Array
    output: jax.Array
    feed_norm: jax.Array
    gate: jax.Array
    up: jax.Array
    down: jax.Array
    final_norm: jax.Array


def first_weights(seed: int) -> Weights:
    keys = iter(jax.random.split(jax.random.key(seed), 8))

    def normal(*shape: int, scale: float) -> jax.Array:
        return jax.random.normal(next(keys), shape, jnp.float32) * scale

    inward = 1 / math.sqrt(WIDTH)
    outward = inward / math.sqrt(2 * LAYERS)
    return Weights(
        embedding=normal(VOCABULARY, WIDTH, scale=0.02),
        attention_norm=jnp.ones((LAYERS, WIDTH)),
        query=normal(LAYERS, WIDTH, WIDTH, scale=inward),
        key=normal(LAYERS, WIDTH, WIDTH, scale=inward),
        value=normal(LAYERS, WIDTH, WIDTH, scale=inward),
        output=normal(LAYERS, WIDTH, WIDTH, scale=outward),
        feed_norm=jnp.ones((LAYERS, WIDTH)),
        gate=normal(LAYERS, WIDTH, FEED_FORWARD, scale=inward),
        up=normal(LAYERS, WIDTH, FEED_FORWARD, scale=inward),
        down=normal(LAYERS, FEED_FORWARD, WIDTH, scale=outward * math.sqrt(WIDTH / FEED_FORWARD)),
        final_norm=jnp.ones((WIDTH,)),
    )


def normed(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + NORM_EPSILON) * gain


def rotated(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotary positions on neighbouring pairs, the order that the llama architecture has in GGUF."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    cosine, sine = jnp.cos(angles)[None, :, None, :], jnp.sin(angles)[None, :, None, :]
    even = pairs[..., 0] * cosine - pairs[..., 1] * sine
    odd = pairs[..., 0] * sine + pairs[..., 1] * cosine
    return jnp.stack((even, odd), axis=-1).reshape(x.shape)


def logits_of(weights: Weights, tokens: jax.Array) -> jax.Array:
    rows, length = tokens.shape
    head_width = WIDTH // HEADS
    frequencies = ROPE_BASE ** (-jnp.arange(0, head_width, 2) / head_width)
    angles = jnp.arange(length)[:, None] * frequencies[None, :]
    visible = jnp.tril(jnp.ones((length, length), bool))
    x = weights.embedding[tokens]
    for layer in range(LAYERS):
        h = normed(x, weights.attention_norm[layer])
        heads = (rows, length, HEADS, head_width)
        query = rotated((h @ weights.query[layer]).reshape(heads), angles)
        key = rotated((h @ weights.key[layer]).reshape(heads), angles)
        value = (h @ weights.value[layer]).reshape(heads)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(head_width)
        shares = jax.nn.softmax(jnp.where(visible, scores, -1e9), axis=-1)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", shares, value).reshape(rows, length, WIDTH)
        x = x + mixed @ weights.output[layer]
        h = normed(x, weights.feed_norm[layer])
        x = x + (jax.nn.silu(h @ weights.gate[layer]) * (h @ weights.up[layer])) @ weights.down[layer]
    return normed(x, weights.final_norm) @ weights.embedding.T


class Rows(NamedTuple):
    tokens: np.ndarray
    shares: np.ndarray


def loss_of(weights: Weights, rows: Rows) -> jax.Array:
    logits = logits_of(weights, rows.tokens[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, rows.tokens[:, 1:])
    shares = rows.shares[:, 1:]
    return jnp.sum(losses * shares) / jnp.sum(shares)


def rows_of_tokens(tokenizer: Tokenizer, seed: int, length: int) -> Iterator[Rows]:
    """Rows that each begin with a whole text; what does not fit at a row's end is cut off."""
    documents = Writer(seed).documents()
    tokens: list[int] = []
    shares: list[float] = []
    while True:
        drawn = [rendered(next(documents)) for _ in range(256)]
        encoded = iter(
            tokenizer.encode_batch([part.text for parts in drawn for part in parts], add_special_tokens=False)
        )
        for parts in drawn:
            for part in parts:
                ids = next(encoded).ids
                tokens += ids
                shares += [part.share] * len(ids)
            if len(tokens) > length:
                yield Rows(np.asarray(tokens[: length + 1], np.int32), np.asarray(shares[: length + 1], np.float32))
                tokens, shares = [], []


def batches(tokenizer: Tokenizer, seed: int, rows: int, length: int) -> Iterator[Rows]:
    source = rows_of_tokens(tokenizer, seed, length)
    while True:
        drawn = [next(source) for _ in range(rows)]
        yield Rows(np.stack([row.tokens for row in drawn]), np.stack([row.shares for row in drawn]))


class Plan(NamedTuple):
    steps: int
    batch_tokens: int
    peak_rate: float
    matrix_rate: float


def optimizer_for(plan: Plan) -> optax.GradientTransformation:
    """Muon for the matrices inside the layers, Adam for the embedding and the norms."""

    def rate(peak: float) -> optax.Schedule:
        warm_up = max(1, plan.steps // 40)
        return optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, plan.steps, peak * 0.02)

    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    kinds = Weights(
        embedding=None,
        attention_norm=None,
        query=matrix,
        key=matrix,
        value=matrix,
        output=matrix,
        feed_norm=None,
        gate=matrix,
        up=matrix,
        down=matrix,
        final_norm=None,
    )
    muon = optax.contrib.muon(
        rate(plan.matrix_rate),
        adam_learning_rate=rate(plan.peak_rate),
        weight_decay=0.01,
        muon_weight_dimension_numbers=kinds,
    )
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def train(tokenizer: Tokenizer, seed: int, plan: Plan) -> tuple[Weights, float]:
    weights = first_weights(seed)
    optimizer = optimizer_for(plan)
    state = optimizer.init(weights)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights: Weights, state: Any, rows: Rows) -> tuple[Weights, Any, jax.Array]:
        loss, gradient = jax.value_and_grad(loss_of)(weights, rows)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    short = batches(tokenizer, seed * 1000 + 1, plan.batch_tokens // SHORT_CONTEXT, SHORT_CONTEXT)
    # One batch in ten has the full context, so that long chats stay sound.
    long = batches(tokenizer, seed * 1000 + 2, max(1, plan.batch_tokens // CONTEXT), CONTEXT)
    started = time.monotonic()
    losses: list[float] = []
    for number in range(plan.steps):
        source = long if number % 10 == 9 else short
        weights, state, loss = step(weights, state, next(source))
        losses.append(float(loss))
        if number % 50 == 49:
            mean = sum(losses[-50:]) / 50
            print(f"step {number + 1}/{plan.steps}  loss {mean:.3f}  {time.monotonic() - started:.0f} s", flush=True)
    return weights, heldout_loss(weights, tokenizer)


def heldout_loss(weights: Weights, tokenizer: Tokenizer) -> float:
    source = batches(tokenizer, 99_999_999, 16, SHORT_CONTEXT)
    measure = jax.jit(loss_of)
    return float(np.mean([measure(weights, next(source)) for _ in range(8)]))


def write_gguf(path: Path, weights: Weights, tokenizer: Tokenizer, seed: int) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    add_description(writer, seed)
    add_tokenizer(writer, tokenizer)

    def add(name: str, tensor: jax.Array, quantised: bool) -> None:
        data = np.asarray(tensor, np.float32)
        if not quantised:
            writer.add_tensor(name, data)
            return
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)

    add("token_embd.weight", weights.embedding, True)
    for layer in range(LAYERS):
        prefix = f"blk.{layer}"
        add(f"{prefix}.attn_norm.weight", weights.attention_norm[layer], False)
        add(f"{prefix}.attn_q.weight", weights.query[layer].T, True)
        add(f"{prefix}.attn_k.weight", weights.key[layer].T, True)
        add(f"{prefix}.attn_v.weight", weights.value[layer].T, True)
        add(f"{prefix}.attn_output.weight", weights.output[layer].T, True)
        add(f"{prefix}.ffn_norm.weight", weights.feed_norm[layer], False)
        add(f"{prefix}.ffn_gate.weight", weights.gate[layer].T, True)
        add(f"{prefix}.ffn_up.weight", weights.up[layer].T, True)
        add(f"{prefix}.ffn_down.weight", weights.down[layer].T, True)
    add("output_norm.weight", weights.final_norm, False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_description(writer: gguf.GGUFWriter, seed: int) -> None:
    writer.add_name("ParalleliX demonstration")
    writer.add_description(
        "A very small language model trained by the ParalleliX repository on its own text. It demonstrates the "
        f"network and is good for nothing else. Seed {seed}."
    )
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(VOCABULARY)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    description = json.loads(tokenizer.to_str())
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    assert [number for _, number in vocabulary] == list(range(VOCABULARY)), len(vocabulary)
    kinds = [gguf.TokenType.CONTROL if token in CONTROL_TOKENS else gguf.TokenType.NORMAL for token, _ in vocabulary]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in description["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id(BEGIN))
    writer.add_eos_token_id(tokenizer.token_to_id(TURN_END))
    writer.add_eot_token_id(tokenizer.token_to_id(TURN_END))
    writer.add_pad_token_id(tokenizer.token_to_id(TURN_END))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch-tokens", type=int, default=1536)
    parser.add_argument("--peak-rate", type=float, default=3e-3)
    parser.add_argument("--matrix-rate", type=float, default=2e-2)
    options = parser.parse_args()
    tokenizer = train_tokenizer()
    plan = Plan(
        steps=options.steps,
        batch_tokens=options.batch_tokens,
        peak_rate=options.peak_rate,
        matrix_rate=options.matrix_rate,
    )
    weights, loss = train(tokenizer, options.seed, plan)
    partial_file = options.out.with_suffix(".partial")
    write_gguf(partial_file, weights, tokenizer, options.seed)
    partial_file.replace(options.out)
    print(f"wrote {options.out}: {options.out.stat().st_size:,} bytes, held-out loss {loss:.3f} nats a token")


if __name__ == "__main__":
    main()
