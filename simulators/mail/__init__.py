"""A mail server: takes mail by SMTP as strictly as a real one, and puts each message into a directory."""
