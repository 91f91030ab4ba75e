"""The chain as the rest of ParalleliX sees it: typed bindings of the five contracts, their errors, and deployment.

Whoever only reads takes the `…Views` and events of `bindings`; nothing there can sign or send.
"""
