"""The coordinator's body: HTTP, store and keys around the engine, whose effects it runs."""
