"""A coordinator on a chain: it follows what the contracts say, and sends what it has to say to them."""
