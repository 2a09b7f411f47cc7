"""What steers an agent, between its model's wishes and what is done."""
