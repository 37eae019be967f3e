"""`retrieval search` without a query: a prompt on a terminal, one query a line from anything else."""
