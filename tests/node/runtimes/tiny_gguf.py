"""Writes llama models that nobody trained, for what no trained model shows on demand: half characters, tool calls.

The same arguments always make the same file, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# The same in Ollama's language.
TEMPLATE_FOR_OLLAMA = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}\n{{ end }}<|assistant|>"
CALL_TEMPLATE = """\
{%- if tools %}<|system|>Tools: {{ tools | tojson }}
For a call, answer with <tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call>
{% endif %}{% for message in messages %}{% if message.role == "tool" %}<|tool|><tool_response>
{{ message.content }}
</tool_response>
{% elif message.tool_calls %}<|assistant|>{{ message.content }}{% for call in message.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{% endfor %}{% else %}<|{{ message.role }}|>{{ message.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
CALL_TEMPLATE_FOR_OLLAMA = """\
{{- if .Tools }}<|system|>Tools: {{ .Tools }}
For a call, answer with <tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call>
{{ end }}{{- range $index, $message := .Messages }}
{{- $last := eq (len (slice $.Messages $index)) 1 }}
{{- if eq .Role "tool" }}<|tool|><tool_response>
{{ .Content }}
</tool_response>
{{ else if eq .Role "assistant" }}<|assistant|>{{ .Content }}{{ if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{ else if not $last }}
{{ end }}{{ else }}<|{{ .Role }}|>{{ .Content }}
{{ end }}
{{- if and $last (ne .Role "assistant") }}<|assistant|>{{ end }}
{{- end }}"""
CALL_PIECES = ["<tool_call>", '\n{"name": "add", ', '"arguments": {"a": 1, ', '"b": 2}}\n', "</tool_call>"]

THINKING_TEMPLATE = """\
{% for message in messages %}{% if message.role == "assistant" %}<|assistant|>{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}
{% else %}<|{{ message.role }}|>{{ message.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
THINKING_PIECES = ["<think>\n", "Let me", " see.\n", "</think>", "\n\n", "Good", " morning."]

WORDS = [f"▁w{number}" for number in range(60)] + ["▁the", "▁node", "▁token", "run", "ning", "END"]
CONTEXT_TOKENS = 2048
_WIDTH, _HIDDEN, _LAYERS = 32, 64, 2
_CONTROL = ("<unk>", "<s>", "</s>")
_BYTE_LEVEL = (*_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)))


def write_tiny_model(
    path: Path,
    *,
    seed: int,
    words: Sequence[str] = (),
    sharpness: float = 6.0,
    context_tokens: int = CONTEXT_TOKENS,
    pools: bool = False,
) -> Path:
    """A byte-level model: 256 byte tokens, `words` as tokens of their own, and </s>, which it hardly ever picks.

    Greater `sharpness` makes more certain picks; without `words` its output is bytes, mostly broken UTF-8. One that
    `pools` makes embeddings instead.
    """
    tensors = _random_tensors(np.random.default_rng(seed), len(_BYTE_LEVEL) + len(words), bool(words), sharpness)
    return _write(path, words, tensors, context_tokens=context_tokens, pools=pools, chat_template=CHAT_TEMPLATE)


def write_scripted_model(path: Path, pieces: Sequence[str], *, chat_template: str) -> Path:
    """A model that answers anything with `pieces`, one token each, and then ends.

    Its layers add nothing, so the next token follows from the last one alone: the first piece after a token of the
    prompt, the next piece after a piece, the end after the last. No piece may occur twice.
    """
    assert len(set(pieces)) == len(pieces)
    first, end = len(_BYTE_LEVEL), _CONTROL.index("</s>")
    tokens = first + len(pieces)
    width = tokens + tokens % 2
    follows = np.zeros((tokens, width), dtype=np.float32)
    follows[first, :first] = 1.0
    for token in range(first, tokens):
        follows[token + 1 if token + 1 < tokens else end, token] = 1.0
    tensors = {
        "token_embd.weight": np.eye(tokens, width, dtype=np.float32),
        "output_norm.weight": np.ones(width, dtype=np.float32),
        "output.weight": follows,
    } | _layer(0, lambda *shape: np.zeros(shape, dtype=np.float32), width)
    words = [piece.replace(" ", "▁") for piece in pieces]
    return _write(path, words, tensors, context_tokens=CONTEXT_TOKENS, pools=False, chat_template=chat_template)


def _write(
    path: Path,
    words: Sequence[str],
    tensors: Mapping[str, np.ndarray],
    *,
    context_tokens: int,
    pools: bool,
    chat_template: str,
) -> Path:
    writer = GGUFWriter(path, "llama")
    width = tensors["token_embd.weight"].shape[1]
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(width)
    writer.add_block_count(sum(name.endswith("attn_q.weight") for name in tensors))
    writer.add_feed_forward_length(_HIDDEN)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(width)
    writer.add_layer_norm_rms_eps(1e-5)
    if pools:
        writer.add_pooling_type(PoolingType.MEAN)
    _write_vocabulary(writer, [*_BYTE_LEVEL, *words])
    writer.add_chat_template(chat_template)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_vocabulary(writer: GGUFWriter, tokens: Sequence[str]) -> None:
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    kinds += [TokenType.NORMAL] * (len(tokens) - len(kinds))
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(tokens))
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


def _random_tensors(
    random: np.random.Generator, tokens: int, prefers_words: bool, sharpness: float
) -> dict[str, np.ndarray]:
    def noise(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.5 / np.sqrt(shape[-1])).astype(np.float32)

    output = noise(tokens, _WIDTH) * sharpness
    output[: len(_CONTROL)] = 0.0
    if prefers_words:
        output[len(_CONTROL) : len(_BYTE_LEVEL)] *= 0.1
    tensors = {
        "token_embd.weight": random.standard_normal((tokens, _WIDTH)).astype(np.float32),
        "output_norm.weight": np.ones(_WIDTH, dtype=np.float32),
        "output.weight": output,
    }
    for layer in range(_LAYERS):
        tensors |= _layer(layer, noise, _WIDTH)
    return tensors


def _layer(layer: int, filled: Callable[..., np.ndarray], width: int) -> dict[str, np.ndarray]:
    block = f"blk.{layer}"
    ones = np.ones(width, dtype=np.float32)
    return {
        f"{block}.attn_norm.weight": ones,
        f"{block}.ffn_norm.weight": ones,
        f"{block}.attn_q.weight": filled(width, width),
        f"{block}.attn_k.weight": filled(width, width),
        f"{block}.attn_v.weight": filled(width, width),
        f"{block}.attn_output.weight": filled(width, width),
        f"{block}.ffn_gate.weight": filled(_HIDDEN, width),
        f"{block}.ffn_up.weight": filled(_HIDDEN, width),
        f"{block}.ffn_down.weight": filled(width, _HIDDEN),
    }
