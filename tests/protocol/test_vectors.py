from __future__ import annotations

import vector_files as vectors


def test_the_committed_vectors_are_what_the_script_makes() -> None:
    made: dict[str, str] = vectors.maker().build()

    assert {path.name for path in vectors.FOLDER.glob("*.json")} == set(made)
    for name, text in made.items():
        assert (vectors.FOLDER / name).read_text() == text, f"{name} differs: run scripts/make_vectors.py and look why"


def test_the_vectors_are_ascii_so_that_every_reader_sees_the_same() -> None:
    for path in vectors.FOLDER.glob("*.json"):
        assert path.read_bytes().isascii(), path.name
