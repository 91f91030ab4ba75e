"""Writes a llama model of random weights, for cases that no trained model shows: bytes that never make a character.

The same seed always makes the same file, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT_TOKENS = 2048
_WIDTH, _HIDDEN, _HEADS, _LAYERS = 32, 64, 2, 2
_CONTROL = ("<unk>", "<s>", "</s>")


def write_tiny_model(path: Path, *, seed: int, words: Sequence[str] = (), sharpness: float = 6.0) -> Path:
    """A byte-level model: 256 byte tokens, `words` as tokens of their own, and </s>, which it hardly ever picks.

    Greater `sharpness` makes more certain picks; without `words` its output is bytes, mostly broken UTF-8.
    """
    vocabulary = [*_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = (
        [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
        + [TokenType.BYTE] * 256
        + [TokenType.NORMAL] * len(words)
    )
    writer = GGUFWriter(path, "llama")
    _write_settings(writer, vocabulary, kinds)
    for name, tensor in _tensors(np.random.default_rng(seed), vocabulary, bool(words), sharpness).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_settings(writer: GGUFWriter, vocabulary: Sequence[str], kinds: Sequence[TokenType]) -> None:
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(vocabulary))
    writer.add_token_scores([0.0] * len(vocabulary))
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(
    random: np.random.Generator, vocabulary: Sequence[str], prefers_words: bool, sharpness: float
) -> dict[str, np.ndarray]:
    def noise(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.5 / np.sqrt(shape[-1])).astype(np.float32)

    output = noise(len(vocabulary), _WIDTH) * sharpness
    output[: len(_CONTROL)] = 0.0
    if prefers_words:
        output[len(_CONTROL) : len(_CONTROL) + 256] *= 0.1
    tensors = {
        "token_embd.weight": random.standard_normal((len(vocabulary), _WIDTH)).astype(np.float32),
        "output_norm.weight": np.ones(_WIDTH, dtype=np.float32),
        "output.weight": output,
    }
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        tensors[f"{block}.attn_norm.weight"] = np.ones(_WIDTH, dtype=np.float32)
        tensors[f"{block}.ffn_norm.weight"] = np.ones(_WIDTH, dtype=np.float32)
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors[f"{block}.{part}.weight"] = noise(_WIDTH, _WIDTH)
        tensors[f"{block}.ffn_gate.weight"] = noise(_HIDDEN, _WIDTH)
        tensors[f"{block}.ffn_up.weight"] = noise(_HIDDEN, _WIDTH)
        tensors[f"{block}.ffn_down.weight"] = noise(_WIDTH, _HIDDEN)
    return tensors
