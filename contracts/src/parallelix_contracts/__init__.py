# SPDX-License-Identifier: AGPL-3.0-only
"""The compiled ParalleliX contracts, as `make contracts` wrote them."""
