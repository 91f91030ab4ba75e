"""One module per contract, made by scripts/make_bindings.py: views, events, and calls apart from them."""
