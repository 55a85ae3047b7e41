"""A receiver of webhooks, as a customer would write one: it checks signatures, keeps what it got, and has faults."""
