"""From the queue to the deploy hook: the RQ jobs and the calls they make."""
