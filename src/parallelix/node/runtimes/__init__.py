"""Where inference happens: one small protocol (`base`) and the engines that fulfil it."""
