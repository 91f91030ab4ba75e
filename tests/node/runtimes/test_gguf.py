from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFWriter
from tiny_gguf import CHAT_TEMPLATE

from parallelix.node.runtimes.base import RuntimeFailed, RuntimeUnsupported
from parallelix.node.runtimes.gguf import read_gguf


def test_the_head_of_a_model_file_is_read(tiny_models: dict[str, Path]) -> None:
    facts = read_gguf(tiny_models["words"])

    assert facts.architecture == "llama"
    assert facts.context_tokens == 2048
    assert facts.chat_template == CHAT_TEMPLATE
    assert not facts.pools
    assert read_gguf(tiny_models["pooled"]).pools


def test_every_cut_of_the_head_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    content = tiny_models["words"].read_bytes()
    end_of_head = content.index(b"tokenizer.chat_template")
    cut = tmp_path / "cut.gguf"

    for length in [0, 3, 4, 8, 16, 24, 30, *range(32, end_of_head, 97)]:
        cut.write_bytes(content[:length])
        with pytest.raises(RuntimeFailed, match=r"cut\.gguf"):
            read_gguf(cut)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("another format", b"PK\x03\x04" + bytes(60)),
        ("another version", b"GGUF" + (99).to_bytes(4, "little") + bytes(60)),
        ("countless facts", b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + b"\xff" * 8),
        ("a long key", b"GGUF" + (3).to_bytes(4, "little") + bytes(8) + (1).to_bytes(8, "little") + b"\xff" * 8),
    ],
)
def test_what_is_no_model_file_is_refused(name: str, head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(head)

    with pytest.raises(RuntimeFailed, match="GGUF"):
        read_gguf(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailed, match=r"gone\.gguf"):
        read_gguf(tmp_path / "gone.gguf")


def test_one_part_of_a_split_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00003.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    with pytest.raises(RuntimeUnsupported, match="3 parts"):
        read_gguf(path)
