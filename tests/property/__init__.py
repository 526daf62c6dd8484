"""Laws that hold whatever is done: a stateful test beside a plain model in memory."""
